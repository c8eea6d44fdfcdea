"""What `why` goes by: facts of one model version, gathered at the edges; the pure functions beside this take them.

bucket (uploads, records, manifests, failures) ─┐
log (what waits for each function, who reads) ──┼─▶ WhyFacts ─▶ why_queue, why_upload, why_product ─▶ WhyAnswer
index (the catalogue's row) ────────────────────┤
local stack (its supervisor's status) ──────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from layerscope.functions.runtime.backlog import Waiting
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.stores.catalogue import Standing

PERIOD: Final = timedelta(seconds=60)
"""Between two rounds of repair, as the PingSource in knative/ says."""


@dataclass(frozen=True, slots=True)
class Line:
    """What waits for a function, in order; whether anybody reads for it, and how long the first event was seen first.

    None: not known, as the group was never there, or this is the first look.
    """

    function: str
    events: tuple[Waiting, ...] = ()
    has_readers: bool | None = None
    unmoved: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A process of a stack on this machine, as its supervisor says; `said`: why it was last restarted, if it was.

    `not_taken` says by subject what a function answered to an event that it did not take, and that is offered again.
    """

    name: str
    is_running: bool
    is_ready: bool
    restarts: int = 0
    said: str = ""
    not_taken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The newest dead letter of the model and a function: what was answered last (None: no answer), and how many there are."""

    status: int | None
    reason: str
    at: datetime
    letters: int


@dataclass(frozen=True, slots=True)
class Near:
    """An object whose key is like the one that is asked for; `refused`: how it breaks the naming rule, if it does."""

    key: str
    subject: str | None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class WhyFacts:
    """All that is known of one model version.

    `lines` is by function, None where the log does not answer (`log_error`); so is `given_up`. `processes` is None away
    from a stack on this machine. `older` are manifests of earlier recipes or inputs, the newest of each product; `indexed`
    is None where the index does not answer (`index_error`).
    """

    identity: Identity
    now: datetime
    standing: Standing | None
    near: tuple[Near, ...] = ()
    superseded: tuple[str, ...] = ()
    older_reading: int | None = None
    older: Mapping[str, Manifest] = field(default_factory=dict)
    lines: Mapping[str, Line] | None = None
    log_error: str = ""
    given_up: Mapping[str, GivenUp] = field(default_factory=dict)
    indexed: bool | None = None
    index_error: str = ""
    processes: Mapping[str, ProcessState] | None = None
    repair: RepairHealth | None = None


def ago(now: datetime, then: datetime) -> str:
    """Write how long ago something was."""
    return f"{length(now - then)} ago"


def length(span: timedelta) -> str:
    """Write a length of time in one unit, or two."""
    return length_of(span.total_seconds())


def length_of(seconds: float) -> str:
    """Write so many seconds in one unit, or two."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} days"
