"""Process supervision on one machine: start in stages, wait until ready, restart what dies, stop in reverse.

`layerscope up` runs the servers (`stack.servers`) and the functions under one `Supervisor`. It waits for whatever is
slow, and says what it waits for; what ends is started again, and how it ended is in its log and in `status.json`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from layerscope.stack.file_lock import try_lock
from layerscope.stack.keeper import POLL_SECONDS, Keeper
from layerscope.stack.process import End, Process, ProcessStatus

logger = logging.getLogger(__name__)

SAY_SECONDS: Final = 10.0
LINE_SHOWN: Final = 200
Say = Callable[[str], None]


class AlreadyRunning(Exception):
    """Another supervisor holds this directory."""


@dataclass(frozen=True)
class Status:
    """The supervisor's own pid and its processes, in the order they were started."""

    supervisor: int
    processes: tuple[ProcessStatus, ...]


def read_status(directory: Path) -> Status | None:
    """Return what the supervisor of this directory last wrote, or None when no supervisor is alive."""
    try:
        with (directory / "supervisor.lock").open() as lock:
            if try_lock(lock, fcntl.LOCK_SH):
                return None
            stored = json.loads((directory / "status.json").read_text())
    except FileNotFoundError:
        return None
    return Status(stored["supervisor"], tuple(map(_process_status, stored["processes"])))


class Supervisor:
    """Keeps processes running; it owns `status.json`, `supervisor.lock` and `logs/` in its directory.

    A context manager: leaving it stops everything. Where it dies without leaving, Linux kills its processes.
    """

    def __init__(self, directory: Path, returned: Callable[[str], None] = lambda _: None) -> None:
        """Supervise nothing yet; the directory is made and taken on entering.

        Args:
            directory: its own.
            returned: called, in a thread, with the name of a process that is ready again after it had ended.
        """
        self._directory = directory
        self._returned = returned
        self._stages: list[list[Keeper]] = []
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        """Take the directory; raises AlreadyRunning while another supervisor has it."""
        (self._directory / "logs").mkdir(parents=True, exist_ok=True)
        self._lock = (self._directory / "supervisor.lock").open("w")
        deadline = time.monotonic() + 0.3  # a reader of the status holds the lock for an instant
        while not try_lock(self._lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                self._lock.close()
                raise AlreadyRunning(f"another supervisor is running in {self._directory}")
            time.sleep(POLL_SECONDS)
        self._write_status()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything and give the directory back."""
        self.stop()
        self._lock.close()

    def start(self, *processes: Process, say: Say = logger.warning, say_seconds: float = SAY_SECONDS) -> None:
        """Start these side by side and return when each has been ready, however long that takes.

        A later call is a later stage. `say` gets a line for each process that ends before it was ready, and every
        `say_seconds` one for those that are waited for.
        """
        logs = self._directory / "logs"
        stage = [
            Keeper(process, logs / f"{process.name}.log", self._write_status, self._returned) for process in processes
        ]
        self._stages.append(stage)
        self._write_status()
        for keeper in stage:
            keeper.thread.start()
        report = _Report(say, say_seconds)
        # Another thread may stop all meanwhile.
        while stage in self._stages and (waiting := [keeper for keeper in stage if not keeper.was_ready.is_set()]):
            report.on(waiting)
            waiting[0].was_ready.wait(POLL_SECONDS)

    def stop(self) -> None:
        """Stop the last stage first, the processes of a stage together; kill what outlives its grace period."""
        while self._stages:
            stage = self._stages[-1]
            for keeper in stage:
                keeper.ask_to_stop()
            while stage := [keeper for keeper in stage if not keeper.has_stopped()]:
                pass
            self._stages.pop()
        self._write_status()

    def _write_status(self) -> None:
        with self._writing:
            keepers = [keeper for stage in self._stages for keeper in stage]
            status = Status(os.getpid(), tuple(keeper.status() for keeper in keepers))
            written = self._directory / "status.json.new"
            with suppress(OSError):  # a full disk stops nobody; the next change is written
                written.write_text(json.dumps(asdict(status), indent=2))
                written.replace(self._directory / "status.json")


class _Report:
    """What is said of processes that are waited for: now and then, and when one has ended again."""

    def __init__(self, say: Say, seconds: float) -> None:
        self._say, self._seconds = say, seconds
        self._began = self._said = time.monotonic()
        self._next: dict[str, int] = {}  # the 1st, 2nd, 4th … end of one that ends again and again, by its name

    def on(self, waiting: Sequence[Keeper]) -> None:
        now = time.monotonic()
        for status in (keeper.status() for keeper in waiting):
            if status.last_end is not None and status.failures >= self._next.get(status.name, 1):
                self._next[status.name] = 2 * status.failures
                times = f" ({status.failures} times in a row)" if status.failures > 1 else ""
                self._say(f"{status.name} {status.last_end.text}\n{status.name} is started again{times}")
        if now - self._said >= self._seconds:
            self._said = now
            named = ", ".join(keeper.status().name for keeper in waiting)
            said = [line for keeper in waiting if (line := keeper.last_line())]
            wrote = f", which wrote last: {said[0][:LINE_SHOWN]}" if len(waiting) == 1 and said else ""
            self._say(f"waiting, {now - self._began:.0f} s so far, for {named}{wrote}")


def _process_status(stored: dict[str, Any]) -> ProcessStatus:
    end = stored.pop("last_end", None)
    made = None if end is None else End(end["at"], end["reason"], tuple(end["last_lines"]))
    return ProcessStatus(**stored, last_end=made)
