"""One process and the thread that starts it, waits for its end and starts it again. Part of `stack.supervisor`.

A slow process is waited for. Only a first start in which nothing moves any more is given up, and begun again.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from layerscope.stack.process import End, Process, ProcessStatus
from layerscope.stack.programs import ServerError
from layerscope.stack.progress import Progress, full_disk, kernel_kills, last_lines, log_bytes, reason_of

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
HEALTHY_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
LONGEST_POLL_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 1.0
MOST_GRACES: Final = 6
LOG_BYTES: Final = 8 * 1024 * 1024

# Runs in the child before the program itself, which takes its place and so keeps its pid. The kernel is asked to kill
# it with the supervisor (PR_SET_PDEATHSIG is 1), and signals that Python or a background shell left ignored are heard.
_BIND_TO_SUPERVISOR: Final = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the supervisor is gone")
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class _Run:
    """A run of the process: where its log begins, whether it moves, and how many the kernel had killed before."""

    child: subprocess.Popen[bytes]
    log_begin: int
    progress: Progress
    kernel_kills: int


class Keeper:
    """Keeps one process running.

    Its thread must live as long as the process: the kernel's death signal comes when the *thread* that forked ends.
    """

    def __init__(
        self, process: Process, log: Path, changed: Callable[[], None], returned: Callable[[str], None]
    ) -> None:
        """Start nothing yet.

        Args:
            process: what to keep running.
            log: the file that gets what it writes.
            changed: called after each change of its status.
            returned: called with its name when it is ready again after it had ended.
        """
        self._process = process
        self._log = log
        self._changed = changed
        self._returned = returned
        self.thread = threading.Thread(target=self._keep_running, name=f"keep-{process.name}", daemon=True)
        self.was_ready = threading.Event()
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._run: _Run | None = None
        self._restarts = self._failures = 0
        self._ready = False
        self._since: str | None = None
        self._last_end: End | None = None
        self._killed_because: str | None = None
        self._asked = self._looked = 0.0
        self._stop_progress: Progress | None = None

    def status(self) -> ProcessStatus:
        """Return how it stands."""
        name, run = self._process.name, self._run
        pid = run.child.pid if run else None
        return ProcessStatus(name, pid, self._restarts, self._ready, self._since, self._failures, self._last_end)

    def last_line(self) -> str:
        """Return what it wrote last in this run."""
        run = self._run
        return (last_lines(self._log, run.log_begin) or ("",))[-1] if run else ""

    def ask_to_stop(self) -> None:
        """Send it its signal; `has_stopped` tells the rest."""
        with self._spawning:
            self._stopping.set()
            self._asked = self._looked = time.monotonic()
            if (run := self._run) is not None:
                self._stop_progress = Progress(run.child.pid, self._log)
                run.child.send_signal(self._process.stop_signal)

    def has_stopped(self) -> bool:
        """Tell whether it has ended; kill it where nothing has moved for its grace, or it took that several times."""
        if self.thread.ident is None:
            return True
        self.thread.join(POLL_SECONDS)
        run, progress, grace = self._run, self._stop_progress, self._process.grace_seconds
        now = time.monotonic()
        if run is not None and progress is not None and now - self._looked >= min(LOOK_SECONDS, grace / 4):
            self._looked = now
            if progress.stalled_seconds() > grace or now - self._asked > MOST_GRACES * grace:
                self._kill(run, f"it did not stop within {now - self._asked:.1f} s of {self._process.stop_signal.name}")
        return not self.thread.is_alive()

    def _keep_running(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            end, was_ready = self._one_run()
            if was_ready and time.monotonic() - began >= HEALTHY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._last_end = end
            self._failures = 0 if was_ready else self._failures + 1
            again = "" if self._stopping.is_set() else f"; starting it again in {pause:g} s"
            self._mark(f"{end.reason}{again}")
            self._changed()
            if again and self.was_ready.is_set():  # before that, whoever waits for it says so
                logger.warning("%s: %s%s", self._process.name, end.reason, again)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._restarts += 1

    def _one_run(self) -> tuple[End, bool]:
        """Start it and wait for its end; return that, and whether it was ready."""
        try:
            run = self._spawn()
        except (OSError, ServerError) as error:
            return End(_now(), f"could not be started: {error}"), False
        if run is None:
            return End(_now(), "was not started"), False
        self._await_ready(run)
        code, was_ready = run.child.wait(), self._ready
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(run.child.pid, signal.SIGKILL)  # what the process started in its session goes with it
        self._run, self._ready = None, False
        asked, kernel_killed = self._stopping.is_set(), kernel_kills() > run.kernel_kills
        reason = reason_of(code, self._killed_because, asked=asked, kernel_killed=kernel_killed)
        if not asked and (full := full_disk(self._process.directory)) is not None:
            reason += f"; the disk of {full} is full, so that it can write nothing there"
        return End(_now(), reason, last_lines(self._log, run.log_begin)), was_ready

    def _spawn(self) -> _Run | None:
        process = self._process
        if process.directory is not None:
            process.directory.mkdir(parents=True, exist_ok=True)
        if process.prepare is not None:
            process.prepare()
        wrapper = (sys.executable, "-I", "-S", "-c", _BIND_TO_SUPERVISOR, str(os.getpid()))
        with self._spawning:
            if self._stopping.is_set():
                return None
            self._since, self._killed_because = _now(), None
            if log_bytes(self._log) > LOG_BYTES:
                self._log.replace(self._log.with_name(f"{self._log.name}.1"))
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab", buffering=0) as log:
                log.write(f"--- {self._since} {process.name} starts\n".encode())
                begin = log.tell()
                child = subprocess.Popen(
                    (*wrapper, *process.command),
                    env=dict(process.environment),
                    cwd=process.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
                )
            self._run = _Run(child, begin, Progress(child.pid, self._log), kernel_kills())
        self._changed()
        return self._run

    def _await_ready(self, run: _Run) -> None:
        """Return once it is ready, has ended, or is to stop; a first start that does not move is killed."""
        pause, looked = POLL_SECONDS, time.monotonic()
        while run.child.poll() is None and not self._stopping.is_set():
            if self._process.ready():
                self._became_ready()
                return
            limit = self._process.stalled_seconds
            if not self.was_ready.is_set() and time.monotonic() - looked >= min(LOOK_SECONDS, limit / 4):
                looked = time.monotonic()
                if run.progress.stalled_seconds() > limit:
                    said = f"in its first start neither its CPU time nor its log grew for {limit:g} s"
                    self._kill(run, said)
            self._stopping.wait(pause)
            pause = min(1.1 * pause, LONGEST_POLL_SECONDS)

    def _became_ready(self) -> None:
        self._ready, self._failures = True, 0
        self._changed()
        if self.was_ready.is_set():
            self._returned(self._process.name)
        self.was_ready.set()

    def _kill(self, run: _Run, because: str) -> None:
        if self._killed_because is None:
            self._killed_because = because
            logger.warning("%s is killed: %s", self._process.name, because)
        run.child.kill()

    def _mark(self, said: str) -> None:
        with suppress(OSError), self._log.open("ab", buffering=0) as log:  # a full disk must not end the thread
            log.write(f"--- {_now()} {self._process.name} {said}\n".encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
