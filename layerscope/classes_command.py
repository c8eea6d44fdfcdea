"""`layerscope classes`: the search for classes of other models that respond alike, with the filters of its HTTP route."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import terminal
from layerscope.console import print_answer
from layerscope.options import At, Json, Name
from layerscope.schemas.classes import ClassAlikeAnswer, ClassJudgement
from layerscope.search_options import (
    Architecture,
    Better,
    Cursor,
    K,
    LeaveOut,
    MaxAccuracy,
    MinAccuracy,
    OfFamily,
    OnDataset,
    OtherDatasets,
    SameDataset,
    answered,
    narrowed,
)


def classes(
    name: Name,
    label: Annotated[str, typer.Argument(metavar="CLASS", help="its name, or its number from 0")],
    at: At = None,
    k: K = 10,
    dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    other_datasets: OtherDatasets = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    family: OfFamily = None,
    leave_out: LeaveOut = "version",
    per: Annotated[str, typer.Option(help="model: of each model its best class, or class")] = "model",
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Show who else recognises a class: the classes of other models, on any dataset, that respond most like it."""
    asked = {
        "k": k,
        **narrowed(dataset, same_dataset, other_datasets, min_accuracy, max_accuracy, better, architecture, leave_out),
        "family": family,
        "per": per,
        "cursor": cursor,
    }
    answer = answered(ClassAlikeAnswer, at, name, ("classes", label, "similar"), asked)
    print_answer(answer, _shown(answer), as_json)


def _shown(answer: ClassAlikeAnswer) -> RenderableType:
    if not answer.hits:
        return Text(answer.reason or "")
    names = ("class", "score", "above untrained", "above stored", "what it is worth", "model", "recall")
    table = Table(*names, box=None, header_style="dim")
    for hit in answer.hits:
        judged, name = hit.judgement, f"{hit.dataset}/{hit.model}/{hit.version}"
        ranks = (judged.percentile_untrained, judged.percentile_stored) if judged else (None, None)
        worth, recall = _judged(judged), terminal.percent(hit.recall)
        table.add_row(Text(hit.class_name), f"{hit.score:.3f}", *map(terminal.percent, ranks), worth, name, recall)
    return table if answer.next is None else Group(table, Text(f"more: --cursor {shlex.quote(answer.next)}"))


def _judged(judgement: ClassJudgement | None) -> str:
    if judgement is None:
        return "not yet"
    if judgement.recognised:
        return "recognises it"
    return "no more than untrained" if judgement.percentile_untrained < 1 else "another class is nearer"
