"""Process supervision on one machine: start in stages, wait until ready, restart what dies, stop in reverse.
`layerscope up` runs the servers (`layerscope.servers`) and the functions under one `Supervisor`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
HEALTHY_SECONDS = 30.0
POLL_SECONDS = 0.05
LOG_BYTES = 8 * 1024 * 1024
LOG_LINES_SHOWN = 20

# Runs in the child before the program itself, which takes its place and so keeps its pid. The kernel is asked to kill
# it with the supervisor (PR_SET_PDEATHSIG is 1), and signals that Python or a background shell left ignored are heard.
_BIND_TO_SUPERVISOR = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the supervisor is gone")
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class StartError(Exception):
    """A process did not become ready; the message ends with the last lines of its log."""


class AlreadyRunning(Exception):
    """Another supervisor holds this directory."""


@dataclass(frozen=True)
class Process:
    """One program to keep running.

    `environment` is all the environment it gets. `directory` is where it runs, made when missing. `prepare` runs once,
    before the first start. `ready` must not raise; it is asked every POLL_SECONDS until it says yes.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[], bool]
    directory: Path | None = None
    prepare: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    start_seconds: float = 60.0


@dataclass(frozen=True)
class ProcessStatus:
    """What `status.json` tells of a process: no pid while it is down; `since` is the UTC time of its last start."""

    name: str
    pid: int | None
    restarts: int
    ready: bool
    since: str | None


@dataclass(frozen=True)
class Status:
    """The supervisor's own pid and its processes, in the order they were started."""

    supervisor: int
    processes: tuple[ProcessStatus, ...]


def try_lock(file: IO[str], kind: int) -> bool:
    """Lock the file unless somebody else has it; `kind` is fcntl.LOCK_SH or LOCK_EX. Closing the file unlocks it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_status(directory: Path) -> Status | None:
    """Return what the supervisor of this directory last wrote, or None when no supervisor is alive."""
    try:
        with (directory / "supervisor.lock").open() as lock:
            if try_lock(lock, fcntl.LOCK_SH):
                return None
            stored = json.loads((directory / "status.json").read_text())
    except FileNotFoundError:
        return None
    return Status(stored["supervisor"], tuple(ProcessStatus(**row) for row in stored["processes"]))


class Supervisor:
    """Keeps processes running; it owns `status.json`, `supervisor.lock` and `logs/` in its directory.

    A context manager: leaving it stops everything. Where it dies without leaving, Linux kills its processes.
    """

    def __init__(self, directory: Path) -> None:
        """Supervise nothing yet; the directory is made and taken on entering."""
        self._directory = directory
        self._stages: list[list[_Keeper]] = []
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

    def start(self, *processes: Process) -> None:
        """Start these side by side and return when each is ready; a later call is a later stage.

        Raises StartError when one ends or stays unready for its `start_seconds`; the others keep running.
        """
        for process in processes:
            if process.directory is not None:
                process.directory.mkdir(parents=True, exist_ok=True)
            if process.prepare is not None:
                process.prepare()
        logs = self._directory / "logs"
        stage = [_Keeper(process, logs / f"{process.name}.log", self._write_status) for process in processes]
        self._stages.append(stage)
        for keeper in stage:
            keeper.thread.start()
        for keeper in stage:
            keeper.wait_for_first_start()

    def stop(self) -> None:
        """Stop the last stage first, the processes of a stage together; kill what outlives its grace period."""
        while self._stages:
            stage = self._stages[-1]
            asked = time.monotonic()
            for keeper in stage:
                keeper.ask_to_stop()
            for keeper in stage:
                keeper.wait_or_kill(asked)
            self._stages.pop()
        self._write_status()

    def _write_status(self) -> None:
        with self._writing:
            keepers = [keeper for stage in self._stages for keeper in stage]
            status = Status(os.getpid(), tuple(keeper.status() for keeper in keepers))
            written = self._directory / "status.json.new"
            written.write_text(json.dumps(asdict(status), indent=2))
            written.replace(self._directory / "status.json")


class _Keeper:
    """One process and the thread that starts it, waits for its end and starts it again.

    That thread must live as long as the process: the kernel's death signal comes when the *thread* that forked ends.
    """

    def __init__(self, process: Process, log: Path, changed: Callable[[], None]) -> None:
        self._process = process
        self._log = log
        self._changed = changed
        self.thread = threading.Thread(target=self._run, name=f"keep-{process.name}", daemon=True)
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._started = False
        self._failure = "it could not be started"
        self._restarts = 0
        self._ready = False
        self._since: str | None = None

    def status(self) -> ProcessStatus:
        child = self._child
        return ProcessStatus(self._process.name, child.pid if child else None, self._restarts, self._ready, self._since)

    def wait_for_first_start(self) -> None:
        self._settled.wait()
        if not self._started:
            last_lines = "\n".join(f"  | {line}" for line in _last_lines(self._log))
            raise StartError(f"{self._process.name}: {self._failure}; the end of {self._log}:\n{last_lines}")

    def ask_to_stop(self) -> None:
        with self._spawning:
            self._stopping.set()
            if self._child is not None:
                self._child.send_signal(self._process.stop_signal)

    def wait_or_kill(self, asked: float) -> None:
        self.thread.join(max(0.0, asked + self._process.grace_seconds - time.monotonic()))
        child = self._child
        if child is not None:
            logger.warning("%s did not stop in %g s: killed", self._process.name, self._process.grace_seconds)
            child.kill()
        self.thread.join()

    def _run(self) -> None:
        try:
            self._keep_running()
        finally:
            self._settled.set()

    def _keep_running(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while (child := self._spawn()) is not None:
            began = time.monotonic()
            if not self._await_ready(child) and not self._stopping.is_set():
                child.kill()
            was_ready, code = self._ready, self._await_end(child)
            if not self._started or self._stopping.is_set():
                return
            if was_ready and time.monotonic() - began >= HEALTHY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.warning("%s ended with code %d: starting it again in %g s", self._process.name, code, pause)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._restarts += 1

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        process = self._process
        wrapper = (sys.executable, "-I", "-S", "-c", _BIND_TO_SUPERVISOR, str(os.getpid()))
        with self._spawning:
            if self._stopping.is_set():
                return None
            self._since = datetime.now(UTC).isoformat(timespec="milliseconds")
            if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
                self._log.replace(self._log.with_name(f"{self._log.name}.1"))
            with self._log.open("ab", buffering=0) as log:
                log.write(f"--- {self._since} {process.name} starts\n".encode())
                self._child = subprocess.Popen(
                    (*wrapper, *process.command),
                    env=dict(process.environment),
                    cwd=process.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
                )
        self._changed()
        return self._child

    def _await_ready(self, child: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + self._process.start_seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            if child.poll() is not None:
                self._failure = f"it ended with code {child.returncode} before it was ready"
                return False
            if self._process.ready():
                self._started = self._ready = True
                self._changed()
                self._settled.set()
                return True
            self._stopping.wait(POLL_SECONDS)
        self._failure = f"it was not ready after {self._process.start_seconds:g} s"
        return False

    def _await_end(self, child: subprocess.Popen[bytes]) -> int:
        code = child.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # what the process started in its session goes with it
        self._child, self._ready = None, False
        self._changed()
        return code


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 200 * LOG_LINES_SHOWN))
        return file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
