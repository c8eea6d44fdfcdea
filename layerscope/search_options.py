"""What the commands that search have in common: their options, and how they ask."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

import typer

from layerscope import client, systems
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import Answer

AnswerT = TypeVar("AnswerT", bound=Answer)


K = Annotated[int, typer.Option(min=1, max=100, help="how many")]
ByMetric = Annotated[str, typer.Option(help="deconfounded, cka, neighbours, or (but for models) classic")]
OnDataset = Annotated[str | None, typer.Option(help="only models on this dataset")]
SameDataset = Annotated[bool, typer.Option("--same-dataset", help="only models on this model's dataset")]
OtherDatasets = Annotated[bool, typer.Option("--other-datasets", help="only models on others than it")]
OverProbe = Annotated[
    str | None,
    typer.Option(
        help="own: over the dataset's probe images; common: over those that all datasets of one image shape share; by "
        "default own, unless other datasets are asked for"
    ),
]
MinAccuracy = Annotated[float | None, typer.Option(help="only models at least this accurate, 0..1")]
MaxAccuracy = Annotated[float | None, typer.Option(help="only models at most this accurate, 0..1")]
Better = Annotated[bool, typer.Option("--better", help="only models more accurate than this one")]
Architecture = Annotated[str | None, typer.Option(help="same or other: models of the same layers, or not")]
OfFamily = Annotated[
    str | None,
    typer.Option(
        "--family", help="only same_weights, fine_tuned, related, same_architecture, or other, by their weights"
    ),
]
LeaveOut = Annotated[str, typer.Option(help="version, model (all its versions), or nothing: it then finds itself")]
Layer = Annotated[str, typer.Argument(help="as in named_modules()")]
Cursor = Annotated[str | None, typer.Option(help="the `next` of the page before")]


def narrowed(
    dataset: str | None,
    same_dataset: bool,
    other_datasets: bool,
    min_accuracy: float | None,
    max_accuracy: float | None,
    better: bool,
    architecture: str | None,
    leave_out: str,
) -> dict[str, Any]:
    """Return which models count, as the HTTP routes take it."""
    return {
        "dataset": dataset,
        "same_dataset": same_dataset or None,
        "other_datasets": other_datasets or None,
        "min_accuracy": min_accuracy,
        "max_accuracy": max_accuracy,
        "better": better or None,
        "architecture": architecture,
        "leave_out": leave_out,
    }


def answered(form: type[AnswerT], at: str | None, name: str, path: tuple[str, ...], asked: dict[str, Any]) -> AnswerT:
    """Ask `query` below the path of a model."""

    async def found() -> AnswerT:
        async with client.querying(systems.locate(at)) as query:
            return form.model_validate(await client.get(query, client.model_path(Identity.parse(name), *path), **asked))

    return asyncio.run(found())
