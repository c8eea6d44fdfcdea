"""`layerscope similar`, `depths` and `alike`: layers and models like one, with the filters that the HTTP routes have."""

from __future__ import annotations

from typing import Annotated

import typer

from layerscope import terminal
from layerscope.console import print_answer
from layerscope.options import At, Json, Name
from layerscope.schemas.alike import AlikeAnswer
from layerscope.schemas.depths import RoleAnswer
from layerscope.schemas.queries import SimilarAnswer
from layerscope.search_options import (
    Architecture,
    Better,
    ByMetric,
    Cursor,
    K,
    Layer,
    LeaveOut,
    MaxAccuracy,
    MinAccuracy,
    OfFamily,
    OnDataset,
    OtherDatasets,
    OverProbe,
    SameDataset,
    answered,
    narrowed,
)


def similar(
    name: Name,
    layer: Layer,
    at: At = None,
    k: K = 10,
    metric: ByMetric = "deconfounded",
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    other_datasets: OtherDatasets = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    family: OfFamily = None,
    min_depth: Annotated[float | None, typer.Option(help="0: a model's first layer, 1: its last")] = None,
    max_depth: Annotated[float | None, typer.Option(help="likewise")] = None,
    leave_out: LeaveOut = "version",
    per: Annotated[str, typer.Option(help="layer, or model: of each model its best layer")] = "layer",
    cursor: Cursor = None,
    probe: OverProbe = None,
    as_json: Json = False,
) -> None:
    """Show the layers of other models that are most like one layer of this model."""
    asked = {
        "k": k,
        "metric": metric,
        **narrowed(dataset, same_dataset, other_datasets, min_accuracy, max_accuracy, better, architecture, leave_out),
        "family": family,
        "min_depth": min_depth,
        "max_depth": max_depth,
        "per": per,
        "cursor": cursor,
        "probe": probe,
    }
    answer = answered(SimilarAnswer, at, name, ("layers", layer, "similar"), asked)
    print_answer(answer, terminal.similar(answer), as_json)


def depths(
    name: Name,
    layer: Layer,
    at: At = None,
    k: K = 100,
    metric: ByMetric = "deconfounded",
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    other_datasets: OtherDatasets = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    family: OfFamily = None,
    leave_out: LeaveOut = "version",
    cursor: Cursor = None,
    probe: OverProbe = None,
    as_json: Json = False,
) -> None:
    """Show where in other models the role of one layer is played: earlier, about as deep, or later."""
    filters = narrowed(
        dataset, same_dataset, other_datasets, min_accuracy, max_accuracy, better, architecture, leave_out
    )
    asked = {"k": k, "metric": metric, **filters, "family": family, "cursor": cursor, "probe": probe}
    answer = answered(RoleAnswer, at, name, ("layers", layer, "depths"), asked)
    print_answer(answer, terminal.depths(answer), as_json)


def alike(
    name: Name,
    at: At = None,
    k: K = 10,
    metric: ByMetric = "deconfounded",
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    other_datasets: OtherDatasets = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    family: OfFamily = None,
    leave_out: LeaveOut = "version",
    cursor: Cursor = None,
    probe: OverProbe = None,
    as_json: Json = False,
) -> None:
    """Show the models that are most like this one, and the nearest that is more accurate."""
    filters = narrowed(
        dataset, same_dataset, other_datasets, min_accuracy, max_accuracy, better, architecture, leave_out
    )
    asked = {"k": k, "metric": metric, **filters, "family": family, "cursor": cursor, "probe": probe}
    answer = answered(AlikeAnswer, at, name, ("similar",), asked)
    print_answer(answer, terminal.alike(answer), as_json)
