"""What an event's sender is answered, as a table for the documentation, from the classes of the errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from layerscope.events import cloudevent, notification  # noqa: F401  they have error classes of their own
from layerscope.schemas.errors import EventError

BEGIN: Final = "<!-- statuses:begin, written by `make schemas` -->"
END: Final = "<!-- statuses:end -->"


def _below(kind: type[EventError]) -> Iterator[type[EventError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def table() -> str:
    """Return a row for each error that an event can end with: its status, its name, the first line of its docstring."""
    rows = sorted(
        {(one.status, one.__name__, (one.__doc__ or "").strip().partition("\n")[0]) for one in _below(EventError)}
    )
    lines = ["| status | `kne-errorclass` | meaning |", "|---|---|---|"]
    lines += ["| 200 | | done; the answer is an event |"]
    for status, name, meaning in rows:
        if status == 204:  # an answer without an error has no class
            lines.append(f"| 204 | | {meaning} Or: done, without an event to answer with. |")
        else:
            lines.append(f"| {status} | `{name}` | {meaning} |")
    return "\n".join([*lines, "| 500 | the exception's name | a bug |"])


def inserted(page: str) -> str:
    """Return a page with the table between its marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} and {END}")
    return f"{before}{begin}\n{table()}\n{end}{after}"
