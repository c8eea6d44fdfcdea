"""How the processes of a stack stand, as `layerscope status` shows them: also how each ended that had to be restarted."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope.stack.process import ProcessStatus

LINES_SHOWN = 5


def process_table(processes: Iterable[ProcessStatus]) -> RenderableType:
    """Return a row for each process, and below them the last end of each that has ended, with its last words."""
    table = Table("process", "pid", "ready", "restarts", "since", box=None, header_style="dim")
    ends: list[RenderableType] = []
    for one in processes:
        ready = Text("yes") if one.ready else Text("no", "yellow")
        table.add_row(one.name, str(one.pid or ""), ready, str(one.restarts), one.since or "")
        if one.last_end is not None:
            again = f" ({one.failures} times in a row before it was ready)" if one.failures > 1 else ""
            ends.append(Text(f"{one.name}, {one.last_end.at}: {one.last_end.reason}{again}", "yellow"))
            if not one.ready:
                ends += [Text(f"  | {line}", "dim") for line in one.last_end.last_lines[-LINES_SHOWN:]]
    return Group(table, *ends)
