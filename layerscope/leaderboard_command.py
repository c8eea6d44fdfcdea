"""`layerscope leaderboard` and `versions`: a dataset's models ranked by a figure, and what a model's versions fixed and broke."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, systems
from layerscope.console import print_answer
from layerscope.options import At, Json
from layerscope.schemas.identity import is_name
from layerscope.schemas.leaderboard import LeaderboardAnswer, RankedModel
from layerscope.schemas.version_history import HistoryAnswer, ModelVersion, VersionStep
from layerscope.search_options import Cursor, MinAccuracy
from layerscope.terminal import COLOURS, percent

SURE = 0.05
"""P-value up to which a change is more than chance, as on the pages."""
Limit = Annotated[int, typer.Option(min=1, max=200, help="how many")]


def leaderboard(
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    at: At = None,
    sort: Annotated[
        str,
        typer.Option(
            help="accuracy, balanced_accuracy, loss, ece, parameters, multiply_adds, findings, products_complete, uploaded, name"
        ),
    ] = "accuracy",
    order: Annotated[str | None, typer.Option(help="descending or ascending; by default the best first")] = None,
    q: Annotated[str | None, typer.Option("--q", help="only models with this in MODEL/VERSION")] = None,
    state: Annotated[str | None, typer.Option(help="only complete, computing, refused, or failed ones")] = None,
    architecture: Annotated[str | None, typer.Option(help="only models of this class, such as ResNet")] = None,
    min_parameters: Annotated[int | None, typer.Option(min=0, help="only models with at least so many")] = None,
    max_parameters: Annotated[int | None, typer.Option(min=0, help="only models with at most so many")] = None,
    min_accuracy: MinAccuracy = None,
    per: Annotated[str, typer.Option(help="version, or model: of each model the version that comes first")] = "version",
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Rank the models of a dataset by a figure."""
    asked = {
        "sort": sort,
        "order": order,
        "q": q,
        "state": state,
        "architecture": architecture,
        "min_parameters": min_parameters,
        "max_parameters": max_parameters,
        "min_accuracy": min_accuracy,
        "per": per,
        "limit": limit,
        "cursor": cursor,
    }
    answer = LeaderboardAnswer.model_validate(_asked(at, "/datasets", dataset, asked))
    print_answer(answer, ranked(answer), as_json)


def versions(
    name: Annotated[str, typer.Argument(metavar="DATASET/MODEL")],
    at: At = None,
    label: Annotated[str | None, typer.Option(help="only images of this class, by its name or number from 0")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List the versions of a model in the order of upload, with what each fixed and broke."""
    answer = HistoryAnswer.model_validate(
        _asked(at, "/models", name, {"label": label, "limit": limit, "cursor": cursor}, parts=2)
    )
    print_answer(answer, history(answer), as_json)


def _asked(at: str | None, place: str, name: str, asked: dict[str, Any], parts: int = 1) -> Any:
    names = name.split("/")
    if len(names) != parts or not all(map(is_name, names)):
        raise ValueError(f"{name!r} is not {'DATASET' if parts == 1 else 'DATASET/MODEL'}")

    async def found() -> Any:
        async with client.querying(systems.locate(at)) as query:
            return await client.get(query, f"{place}/{name}", **asked)

    return asyncio.run(found())


def ranked(answer: LeaderboardAnswer) -> RenderableType:
    """Show a page of a leaderboard."""
    told = [Text(text) for text in (answer.notice, answer.reason) if text]
    if not answer.models:
        return Group(*told)
    columns = ("model", "accuracy", "95 % interval", "parameters", "multiply-adds", "calibration", "findings")
    table = Table(*columns, box=None, header_style="dim")
    for one in answer.models:
        table.add_row(*_row(one))
    more = [Text(f"more: --cursor '{answer.next}'")] if answer.next else []
    return Group(*told, table, *more)


def _row(one: RankedModel) -> tuple[Text | str, ...]:
    has = one.figures
    name = Text(f"{one.model}/{one.version}")
    if one.state != "complete":
        name.append(f" {one.state}", style=COLOURS[one.state])
    ends = (has.accuracy_low, has.accuracy_high)
    return (
        name,
        percent(has.accuracy),
        " to ".join(f"{100 * end:.1f}" for end in ends if end is not None),
        *("" if size is None else f"{size:,}" for size in (has.parameters, has.multiply_adds)),
        "at chance" if has.means_something is False else percent(has.ece),
        "" if has.findings is None else str(has.findings),
    )


def history(answer: HistoryAnswer) -> RenderableType:
    """Show a page of a model's versions."""
    if not answer.versions:
        return Text(answer.reason or "")
    share = "accuracy" if answer.label is None else f"of {answer.label} right"
    columns = ("version", share, "fixed", "broken", "otherwise", "p-value", "changed beyond chance")
    table = Table(*columns, box=None, header_style="dim")
    for one in answer.versions:
        known = one.figures.accuracy if answer.label is None else one.recall
        table.add_row(Text(one.version), percent(known), *(_step(one.step) if one.step else _no_step(one)))
    more = [Text(f"more: --cursor '{answer.next}'")] if answer.next else []
    return Group(Text(answer.verdict), table, *more)


def _step(step: VersionStep) -> tuple[Text | str, ...]:
    sure = [f"{one.name} {100 * one.difference:+.1f} points" for one in step.changed if one.p_value <= SURE]
    counts = (f"{count:,}" for count in (step.fixed, step.broken, step.differ))
    return *counts, f"{step.p_value:.3f}", Text(", ".join(sure))


def _no_step(one: ModelVersion) -> tuple[Text | str, ...]:
    return "", "", "", "", Text(one.reason or "", style="dim")
