"""`layerscope similar`: the search for similar layers, with the filters that its HTTP route has."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from layerscope import client, systems, terminal
from layerscope.console import print_answer
from layerscope.options import At, Json, Name
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import SimilarAnswer
from layerscope.systems import Located


def similar(
    name: Name,
    layer: Annotated[str, typer.Argument(help="as in named_modules()")],
    at: At = None,
    k: Annotated[int, typer.Option(min=1, max=100, help="how many")] = 10,
    metric: Annotated[str, typer.Option(help="deconfounded or cka")] = "deconfounded",
    dataset: Annotated[str | None, typer.Option(help="only models on this dataset")] = None,
    same_dataset: Annotated[bool, typer.Option("--same-dataset", help="only models on this model's dataset")] = False,
    min_accuracy: Annotated[float | None, typer.Option(help="only models at least this accurate, 0..1")] = None,
    max_accuracy: Annotated[float | None, typer.Option(help="only models at most this accurate, 0..1")] = None,
    better: Annotated[bool, typer.Option("--better", help="only models more accurate than this one")] = False,
    architecture: Annotated[str | None, typer.Option(help="same or other: models of the same layers, or not")] = None,
    min_depth: Annotated[float | None, typer.Option(help="0: a model's first layer, 1: its last")] = None,
    max_depth: Annotated[float | None, typer.Option(help="likewise")] = None,
    leave_out: Annotated[
        str, typer.Option(help="version, model (all its versions), or nothing: the layer then finds itself")
    ] = "version",
    per: Annotated[str, typer.Option(help="layer, or model: of each model its best layer")] = "layer",
    cursor: Annotated[str | None, typer.Option(help="the `next` of the page before")] = None,
    as_json: Json = False,
) -> None:
    """Show the layers of other models that are most like one layer of this model."""
    asked = {
        "k": k,
        "metric": metric,
        "dataset": dataset,
        "same_dataset": same_dataset or None,
        "min_accuracy": min_accuracy,
        "max_accuracy": max_accuracy,
        "better": better or None,
        "architecture": architecture,
        "min_depth": min_depth,
        "max_depth": max_depth,
        "leave_out": leave_out,
        "per": per,
        "cursor": cursor,
    }
    path = client.model_path(Identity.parse(name), "layers", layer, "similar")
    answer = asyncio.run(_found(systems.locate(at), path, asked))
    print_answer(answer, terminal.similar(answer), as_json)


async def _found(system: Located, path: str, asked: dict[str, Any]) -> SimilarAnswer:
    async with client.querying(system) as query:
        return SimilarAnswer.model_validate(await client.get(query, path, **asked))
