"""`layerscope classes`: the search for classes of other models that respond alike, with the filters of its HTTP route."""

from __future__ import annotations

import asyncio
import shlex
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, systems, terminal
from layerscope.console import print_answer
from layerscope.options import At, Json, Name
from layerscope.schemas.classes import ClassAlikeAnswer
from layerscope.schemas.identity import Identity
from layerscope.systems import Located


def classes(
    name: Name,
    label: Annotated[str, typer.Argument(metavar="CLASS", help="its name, or its number from 0")],
    at: At = None,
    k: Annotated[int, typer.Option(min=1, max=100, help="how many")] = 10,
    dataset: Annotated[str | None, typer.Option(help="only models on this dataset")] = None,
    same_dataset: Annotated[bool, typer.Option("--same-dataset", help="only models on this model's dataset")] = False,
    other_datasets: Annotated[bool, typer.Option("--other-datasets", help="only models on others than it")] = False,
    min_accuracy: Annotated[float | None, typer.Option(help="only models at least this accurate, 0..1")] = None,
    max_accuracy: Annotated[float | None, typer.Option(help="only models at most this accurate, 0..1")] = None,
    better: Annotated[bool, typer.Option("--better", help="only models more accurate than this one")] = False,
    architecture: Annotated[str | None, typer.Option(help="same or other: models of the same layers, or not")] = None,
    leave_out: Annotated[
        str, typer.Option(help="version, model (all its versions), or nothing: the class then finds itself")
    ] = "version",
    per: Annotated[str, typer.Option(help="model: of each model its best class, or class")] = "model",
    cursor: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    as_json: Json = False,
) -> None:
    """Show who else recognises a class: the classes of other models, on any dataset, that respond most like it."""
    asked = {
        "k": k,
        "dataset": dataset,
        "same_dataset": same_dataset or None,
        "other_datasets": other_datasets or None,
        "min_accuracy": min_accuracy,
        "max_accuracy": max_accuracy,
        "better": better or None,
        "architecture": architecture,
        "leave_out": leave_out,
        "per": per,
        "cursor": cursor,
    }
    path = client.model_path(Identity.parse(name), "classes", label, "alike")
    answer = asyncio.run(_found(systems.locate(at), path, asked))
    print_answer(answer, _shown(answer), as_json)


def _shown(answer: ClassAlikeAnswer) -> RenderableType:
    if not answer.hits:
        return Text(answer.reason or "")
    table = Table(
        "class", "score", "above untrained", "model", "recall", "what it is worth", box=None, header_style="dim"
    )
    for hit in answer.hits:
        share = hit.judgement.percentile_untrained if hit.judgement else None
        name = f"{hit.dataset}/{hit.model}/{hit.version}"
        row = (f"{hit.score:.3f}", terminal.percent(share), name, terminal.percent(hit.recall))
        table.add_row(Text(hit.class_name), *row, Text(hit.sentence))
    return table if answer.next is None else Group(table, Text(f"more: --cursor {shlex.quote(answer.next)}"))


async def _found(system: Located, path: str, asked: dict[str, Any]) -> ClassAlikeAnswer:
    async with client.querying(system) as query:
        return ClassAlikeAnswer.model_validate(await client.get(query, path, **asked))
