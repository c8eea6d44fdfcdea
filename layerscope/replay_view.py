"""How plans and runs of replay look in a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope.schemas.operations import PlanAnswer, RunAnswer, RunList

SHOWN: Final = 200
"""How many outcomes of a plan are shown one by one, unless JSON is asked for."""

LABELS: Final = {
    "there": "there already",
    "none": "did not come",
    "under_way": "under way",
    "changed": "changed figures",
}


def summary(plan: PlanAnswer) -> str:
    """Say in a line what a plan comes to."""
    made = f"{plan.asked} to ask for, {plan.follow} that follow, of {plan.models} models"
    unknown = f", and {plan.unknown} of unknown length" if plan.unknown else ""
    return f"{made}; about {plan.seconds:,.0f} s of computing{unknown}"


def plan(planned: PlanAnswer) -> RenderableType:
    """Show what a run would make."""
    if not planned.entries:
        return Text(f"nothing to do; {planned.there} selected outcomes are there")
    table = Table("model", "product", "why", "stands on", "seconds", box=None, header_style="dim")
    for one in planned.entries[:SHOWN]:
        seconds = "?" if one.seconds is None else f"{one.seconds:.1f}"
        function = Text(f"  {one.function}" if one.follows else one.function)
        table.add_row(Text(one.subject), function, Text(one.reason), Text(", ".join(one.stands_on)), seconds)
    lines: list[RenderableType] = [table]
    if len(planned.entries) > SHOWN:
        lines.append(Text(f"… and {len(planned.entries) - SHOWN} more; --json has all"))
    lines += [Text(f"{summary(planned)}; {planned.there} are there already"), Text(f"plan {planned.digest}", "cyan")]
    return Group(*lines)


def runs(listed: RunList) -> RenderableType:
    """Show runs, one a row."""
    if not listed.runs and not listed.damaged:
        return Text("there were no runs")
    table = Table("run", "state", "planned", "computed", "failed", box=None, header_style="dim")
    for one in listed.runs:
        table.add_row(one.id, one.state, str(one.planned), str(one.computed), str(one.failed + one.none))
    for name in listed.damaged:
        table.add_row(name, Text("its plan cannot be read", "red"), "?", "?", "?")
    return table


def run(shown: RunAnswer) -> RenderableType:
    """Show how far a run has come, and what came of it."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    for name in ("planned", "asked", "under_way", "computed", "refused", "there", "failed", "none", "changed"):
        table.add_row(LABELS.get(name, name), f"{getattr(shown, name):,}")
    lines: list[RenderableType] = [Text(f"{shown.id}  {shown.state}", style="bold")]
    if shown.waits_for:
        lines.append(Text(f"waits for {shown.waits_for}", style="yellow"))
    lines.append(table)
    for one in shown.changes:
        figures = ", ".join(f"{name} {_figure(old)} → {_figure(new)}" for name, (old, new) in one.figures.items())
        said = [figures] if figures else []
        said += [f"other bytes in {', '.join(one.files)}"] if one.files else []
        lines.append(Text(f"{one.subject} {one.function}: {'; '.join(said)}"))
    lines += [Text(f"{one.subject} {one.function}: {one.reason}", style="red") for one in shown.unmade]
    if shown.beside and shown.state != "running":
        lines.append(_acceptance(shown))
    return Group(*lines)


def _acceptance(shown: RunAnswer) -> RenderableType:
    done = shown.accepted
    if done is None:
        same = f"what stands is as it was; `layerscope replay accept {shown.id}` puts these in its place"
        return Text("nothing differs from what stands" if not shown.changed and not shown.unmade else same, "cyan")
    lines = [Text(f"accepted: {done.replaced} others stand now, {done.equal} are the same", "cyan")]
    lines += [Text(f"{one.subject} {one.function}: {one.reason}", "red") for one in done.left]
    return Group(*lines)


def _figure(value: float | int | str | bool | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "nothing" if value is None else str(value)
