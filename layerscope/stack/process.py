"""What a supervisor is given to keep running, and what it says of it in `status.json`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One program to keep running.

    `environment` is all the environment it gets. `directory` is where it runs, made when missing. `prepare` runs before
    every start, so that what was lost since the last one is made again. `ready` must not raise; it is asked until it
    says yes. `grace_seconds` and `stalled_seconds` are times without any progress: of a process that was asked to stop,
    and of one that starts for the first time.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[], bool]
    directory: Path | None = None
    prepare: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    stalled_seconds: float = 120.0


@dataclass(frozen=True)
class End:
    """How a run of a process ended: when (UTC), who or what ended it, and the last lines that it wrote."""

    at: str
    reason: str
    last_lines: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return it as lines for people."""
        return "\n".join([self.reason, *(f"  | {line}" for line in self.last_lines)])


@dataclass(frozen=True)
class ProcessStatus:
    """What `status.json` says of a process: no pid while it is down; `since` is the UTC time of its last start.

    `failures` counts the runs in a row that ended before the process was ready; `last_end` is how its last run ended.
    """

    name: str
    pid: int | None
    restarts: int
    ready: bool
    since: str | None
    failures: int = 0
    last_end: End | None = None
