"""`layerscope predict`: a picture of one's own put to a stored model, and how its answer looks in a terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, systems
from layerscope.console import print_answer
from layerscope.options import At, Json, Name
from layerscope.schemas.identity import Identity
from layerscope.schemas.inference import NearestImage, PredictionAnswer
from layerscope.systems import Located

SHOWN = 5


def predict(
    name: Name,
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="PNG, JPEG or an array as .npy")],
    at: At = None,
    as_json: Json = False,
) -> None:
    """Say which class a model gives a picture, and what that stands on."""
    answer = asyncio.run(asked(systems.locate(at), Identity.parse(name), picture.read_bytes()))
    print_answer(answer, shown(answer), as_json)


async def asked(system: Located, identity: Identity, content: bytes) -> PredictionAnswer:
    """Return the answer of a system.

    Raises:
        NoSystem: it does not run.
        QueryFailed: it answers with an error.
    """
    async with client.querying(system) as query:
        found = await client.send(query, client.model_path(identity, "predict"), content)
    return PredictionAnswer.model_validate(found)


def shown(answer: PredictionAnswer) -> RenderableType:
    """Show the class, the most probable ones, the nearest test images, and how the picture was read."""
    name = answer.predicted.name if answer.predicted else "no class: an output is not finite"
    title = Text.assemble((name, "bold"), f"  by {answer.dataset}/{answer.model}/{answer.version} on {answer.device}")
    classes = Table("class", "probability", "output", box=None, header_style="dim")
    for one in answer.classes[:SHOWN]:
        probability = "" if one.probability is None else f"{100 * one.probability:.2f} %"
        classes.add_row(Text(one.name), probability, "" if one.output is None else f"{one.output:.4g}")
    parts: list[RenderableType] = [title, classes, *_near(answer), Text(_map(answer)), Text(_reading(answer))]
    seconds = answer.seconds
    figures = f"reading {seconds.reading:.3f} s, loading {seconds.loading:.3f} s, computing {seconds.computing:.3f} s"
    return Group(*parts, Text(figures, style="dim"))


def _near(answer: PredictionAnswer) -> list[RenderableType]:
    near = answer.nearest
    if near.reason is not None:
        return [Text(f"nearest test images: {near.reason}")]
    table = Table("test image", "distance", "true class", "its answer", box=None, header_style="dim")
    for one in near.images:
        table.add_row(str(one.index), f"{one.distance:.4g}", Text(one.label_name), Text(_given(one)))
    of = f"the nearest of {near.searched:,} of {near.test_images:,} test images by the input of layer {near.layer}"
    return [Text(f"{of}, Euclidean:"), table]


def _given(one: NearestImage) -> str:
    return "none" if one.predicted_name is None else one.predicted_name


def _map(answer: PredictionAnswer) -> str:
    found = answer.map
    if found is None:
        return f"strongest feature map: {answer.map_reason}"
    return (
        f"strongest feature map: layer {found.layer}, channel {found.channel}, at {100 * found.ratio:.0f} % of the "
        "strongest that any test image made it respond"
    )


def _reading(answer: PredictionAnswer) -> str:
    read = answer.read
    height, width, channels = read.shape
    given = f"given to the model as {width} × {height} × {channels}, (pixel / 255 - mean) / std"
    mean, std = (", ".join(f"{one:.4g}" for one in figures) for figures in (read.mean, read.std))
    own = f"{read.format}, {read.width} × {read.height}, {read.mode}"
    return f"read: {'; '.join((own, *read.steps, given))}, mean {mean}, std {std}"
