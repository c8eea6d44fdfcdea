"""`layerscope similar`, `depths` and `alike`: layers and models like one, with the filters that the HTTP routes have."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

import typer

from layerscope import client, systems, terminal
from layerscope.console import print_answer
from layerscope.options import At, Json, Name
from layerscope.schemas.alike import AlikeAnswer
from layerscope.schemas.depths import RoleAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import Answer, SimilarAnswer

AnswerT = TypeVar("AnswerT", bound=Answer)


K = Annotated[int, typer.Option(min=1, max=100, help="how many")]
ByMetric = Annotated[str, typer.Option(help="deconfounded or cka")]
OnDataset = Annotated[str | None, typer.Option(help="only models on this dataset")]
SameDataset = Annotated[bool, typer.Option("--same-dataset", help="only models on this model's dataset")]
MinAccuracy = Annotated[float | None, typer.Option(help="only models at least this accurate, 0..1")]
MaxAccuracy = Annotated[float | None, typer.Option(help="only models at most this accurate, 0..1")]
Better = Annotated[bool, typer.Option("--better", help="only models more accurate than this one")]
Architecture = Annotated[str | None, typer.Option(help="same or other: models of the same layers, or not")]
LeaveOut = Annotated[str, typer.Option(help="version, model (all its versions), or nothing: it then finds itself")]
Layer = Annotated[str, typer.Argument(help="as in named_modules()")]
Cursor = Annotated[str | None, typer.Option(help="the `next` of the page before")]


def similar(
    name: Name,
    layer: Layer,
    at: At = None,
    k: K = 10,
    metric: ByMetric = "deconfounded",
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    min_depth: Annotated[float | None, typer.Option(help="0: a model's first layer, 1: its last")] = None,
    max_depth: Annotated[float | None, typer.Option(help="likewise")] = None,
    leave_out: LeaveOut = "version",
    per: Annotated[str, typer.Option(help="layer, or model: of each model its best layer")] = "layer",
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Show the layers of other models that are most like one layer of this model."""
    asked = {
        "k": k,
        "metric": metric,
        **_models(dataset, same_dataset, min_accuracy, max_accuracy, better, architecture, leave_out),
        "min_depth": min_depth,
        "max_depth": max_depth,
        "per": per,
        "cursor": cursor,
    }
    answer = _answer(SimilarAnswer, at, name, ("layers", layer, "similar"), asked)
    print_answer(answer, terminal.similar(answer), as_json)


def depths(
    name: Name,
    layer: Layer,
    at: At = None,
    k: K = 100,
    metric: ByMetric = "deconfounded",
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    leave_out: LeaveOut = "version",
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Show where in other models the role of one layer is played: earlier, about as deep, or later."""
    filters = _models(dataset, same_dataset, min_accuracy, max_accuracy, better, architecture, leave_out)
    asked = {"k": k, "metric": metric, **filters, "cursor": cursor}
    answer = _answer(RoleAnswer, at, name, ("layers", layer, "depths"), asked)
    print_answer(answer, terminal.depths(answer), as_json)


def alike(
    name: Name,
    at: At = None,
    k: K = 10,
    metric: ByMetric = "deconfounded",
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    family: Annotated[
        str | None,
        typer.Option(help="only same_weights, fine_tuned, related, same_architecture, or other, by their weights"),
    ] = None,
    leave_out: LeaveOut = "version",
    as_json: Json = False,
) -> None:
    """Show the models that are most like this one, and the nearest that is more accurate."""
    filters = _models(dataset, same_dataset, min_accuracy, max_accuracy, better, architecture, leave_out)
    asked = {"k": k, "metric": metric, **filters, "family": family}
    answer = _answer(AlikeAnswer, at, name, ("similar",), asked)
    print_answer(answer, terminal.alike(answer), as_json)


def _models(
    dataset: str | None,
    same_dataset: bool,
    min_accuracy: float | None,
    max_accuracy: float | None,
    better: bool,
    architecture: str | None,
    leave_out: str,
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "same_dataset": same_dataset or None,
        "min_accuracy": min_accuracy,
        "max_accuracy": max_accuracy,
        "better": better or None,
        "architecture": architecture,
        "leave_out": leave_out,
    }


def _answer(form: type[AnswerT], at: str | None, name: str, path: tuple[str, ...], asked: dict[str, Any]) -> AnswerT:
    async def found() -> AnswerT:
        async with client.querying(systems.locate(at)) as query:
            return form.model_validate(await client.get(query, client.model_path(Identity.parse(name), *path), **asked))

    return asyncio.run(found())
