"""`layerscope check`: whether a version is as good as is required, for CI: by exit status, as JSON, as a JUnit file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, required_figures, stored_products, systems
from layerscope.console import print_answer, say
from layerscope.junit_report import Case, report
from layerscope.options import At, Json, Name
from layerscope.required_figures import FINDINGS, Change, Known
from layerscope.requirement import Requirement, parse
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.example_images import ExampleImages
from layerscope.schemas.products.findings import Findings
from layerscope.stored_products import NotThere
from layerscope.systems import Located, NoSystem


class NotJudged(ValueError):
    """Whether the requirements hold cannot be said; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A requirement, the figure as it is, and whether it holds."""

    requirement: str
    figure: str
    value: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: a version, the one that it is held beside, what must hold, and how long to wait for products."""

    identity: Identity
    against: Identity | None
    requirements: tuple[Requirement, ...]
    seconds: float


def check(
    name: Name,
    require: Annotated[
        list[str], typer.Option("--require", metavar="FIGURE>=NUMBER", help="what must hold; also <=, >, < and ==")
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="VERSION|DATASET/MODEL/VERSION", help="the version before, on the same test images"),
    ] = None,
    junit: Annotated[Path | None, typer.Option(dir_okay=False, help="JUnit file to write")] = None,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for their products; 0: do not wait")] = 0,
    at: At = None,
    as_json: Json = False,
) -> None:
    """Tell whether a version is as good as is required. Exit status: 0 it is, 1 it is not, 2 that cannot be told.

    Figures: accuracy, accuracy[CLASS], errors, top5_accuracy, ece (calibration error), findings; with --against also
    fixed and broken (images), churn (share of images answered otherwise) and difference (of accuracy).
    """
    began, clock = datetime.now(UTC), time.monotonic()
    try:
        asked = question(name, against, require, wait)
        judged = asyncio.run(judge(systems.locate(at), asked))
    except (LayerscopeError, ValueError) as error:
        # A file of an earlier run would otherwise tell of success.
        cases = [Case(one, "error", str(error)) for one in require]
        _write(junit, name, against, cases, began, time.monotonic() - clock)
        if isinstance(error, NoSystem):
            raise
        raise NotJudged(str(error)) from error
    holds = all(one.holds for one in judged)
    _write(junit, name, against, [_case(one) for one in judged], began, time.monotonic() - clock)
    print_answer(_as_json(asked, judged), shown(asked, judged), as_json)
    if not holds:
        raise typer.Exit(1)


def question(name: str, against: str | None, require: Sequence[str], seconds: float) -> Asked:
    """Return what is asked, as it was written.

    Raises:
        ValueError: something in it is not understood, or the two versions are on different datasets.
    """
    identity = Identity.parse(name)
    other = None
    if against is not None:
        other = Identity.parse(against if "/" in against else f"{identity.dataset}/{identity.model}/{against}")
        if other.dataset != identity.dataset:
            raise ValueError(
                f"{identity.subject} and {other.subject} are on different datasets: only answers for the same test images "
                f"are compared, so give --against a version on {identity.dataset}"
            )
    requirements = tuple(map(parse, require))
    for one in requirements:
        required_figures.understood(one, with_change=other is not None)
    return Asked(identity, other, requirements, seconds)


async def judge(system: Located, asked: Asked) -> tuple[Judged, ...]:
    """Return what each requirement came to.

    Raises:
        NotThere: a version or a product is not there (yet).
        ValueError: a figure is not known of this version, or the two were not measured on the same images.
        NoSystem: the system does not run.
        QueryFailed: it answers with an error.
    """
    async with client.querying(system) as query:
        deadline = time.monotonic() + asked.seconds
        for one in (asked.identity, asked.against):
            if one is not None and asked.seconds:
                # Afterwards it is said what is not there; and others than those that are needed may be.
                with suppress(TimeoutError):
                    await client.outcome(query, one, deadline - time.monotonic(), say)
        known = await _known(query, asked)
    return tuple(_judged(one, known) for one in asked.requirements)


def shown(asked: Asked, judged: Sequence[Judged]) -> RenderableType:
    """Show the requirements, the figures, and what that comes to."""
    table = Table("requirement", "figure", "holds", box=None, header_style="dim")
    for one in judged:
        mark = Text("yes", "green") if one.holds else Text("no", "red")
        table.add_row(Text(one.requirement), f"{one.value:.6g}", mark)
    beside = f" against {asked.against.subject}" if asked.against else ""
    title = Text.assemble((asked.identity.subject, "bold"), beside)
    kept = sum(one.holds for one in judged)
    return Group(title, table, Text(f"{kept} of {len(judged)} requirements hold"))


async def _known(query: httpx.AsyncClient, asked: Asked) -> Known:
    try:
        evaluation = await stored_products.product(query, asked.identity, Evaluation)
        findings = None
        if any(one.figure == FINDINGS for one in asked.requirements):
            findings = len((await stored_products.product(query, asked.identity, Findings)).findings)
        change = await _change(query, asked.identity, asked.against) if asked.against else None
    except NotThere as error:
        if error.state != "computing":
            raise
        more = f"; it was waited for {asked.seconds:g} s" if asked.seconds else "; --wait SECONDS waits for it"
        raise NotThere(f"{error}{more}", error.state) from error
    return Known(asked.identity, evaluation, findings, change)


async def _change(query: httpx.AsyncClient, identity: Identity, against: Identity) -> Change:
    async def answers(of: Identity) -> tuple[required_figures.Integers, required_figures.Integers]:
        labels = await stored_products.array(query, of, ExampleImages, "labels")
        return labels, await stored_products.array(query, of, ExampleImages, "predicted")

    (labels, after), (others, before) = await answers(identity), await answers(against)
    if not np.array_equal(labels, others):
        raise ValueError(
            f"{identity.subject} and {against.subject} were measured on other test images: wait until both are measured on "
            f"those that {identity.dataset} has now"
        )
    return required_figures.change(labels, before, after)


def _judged(required: Requirement, known: Known) -> Judged:
    value = required_figures.value_of(required, known)
    name = required.figure if required.of_class is None else f"{required.figure}[{required.of_class}]"
    return Judged(required.text, name, value, required.holds(value))


def _case(one: Judged) -> Case:
    if one.holds:
        return Case(one.requirement, "passed")
    return Case(one.requirement, "failure", f"{one.figure} is {one.value:.6g}; required is {one.requirement}")


def _as_json(asked: Asked, judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        **asdict(asked.identity),
        "against": asked.against.subject if asked.against else None,
        "holds": all(one.holds for one in judged),
        "requirements": [asdict(one) for one in judged],
    }


def _write(
    path: Path | None, name: str, against: str | None, cases: Sequence[Case], began: datetime, seconds: float
) -> None:
    if path is None:
        return
    properties = {"model": name, **({"against": against} if against else {})}
    try:
        path.write_bytes(report(name, cases, seconds=seconds, at=began, properties=properties))
    except OSError as error:
        raise NotJudged(f"{path} cannot be written ({error.strerror}): give --junit another file") from error
    say(f"wrote {path}")
