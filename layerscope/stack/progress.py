"""Whether a process gets on, however slowly: its log grows, or the CPU time of its session does; and why one ended."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
LOG_LINES_SHOWN: Final = 20
LINE_BYTES: Final = 1_000
STACK_FRAME: Final = re.compile(r"\s+at \S+\(|\s+\.\.\. \d+ more")
"""Lines of Java between what went wrong and what came of it."""
FULL_BYTES: Final = 64 * 1024
_SESSION, _CPU_TIMES = 3, slice(11, 15)  # fields of /proc/PID/stat after the name: user, system, and of reaped children


class Progress:
    """Watches one process and those in its session."""

    def __init__(self, pid: int, log: Path) -> None:
        self._pid = pid
        self._log = log
        self._seen = self._now()
        self._since = time.monotonic()

    def stalled_seconds(self) -> float:
        """Return for how long nothing has moved, as of now; 0 where no /proc says what a process does."""
        now = self._now()
        if now != self._seen or not PROC.exists():
            self._seen, self._since = now, time.monotonic()
        return time.monotonic() - self._since

    def _now(self) -> tuple[int, int]:
        return log_bytes(self._log), cpu_ticks(self._pid)


def log_bytes(log: Path) -> int:
    """Return the size of a log; one that is not there has none."""
    with suppress(OSError):
        return log.stat().st_size
    return 0


def cpu_ticks(session: int) -> int:
    """Return the CPU time of all processes of a session, in the kernel's ticks."""
    return sum(sum(map(int, fields[_CPU_TIMES])) for fields in _stats() if int(fields[_SESSION]) == session)


def kernel_kills() -> int:
    """Return how many processes this machine's kernel has killed for want of memory since it started."""
    with suppress(OSError):
        for line in (PROC / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def reason_of(code: int, by_supervisor: str | None, *, asked: bool, kernel_killed: bool) -> str:
    """Return in words how a process ended.

    Args:
        code: as `subprocess` has it: negative for a signal.
        by_supervisor: why the supervisor killed it; None: it did not.
        asked: whether the supervisor had asked it to stop.
        kernel_killed: whether the kernel has killed processes for want of memory meanwhile.
    """
    if by_supervisor is not None:
        return f"killed by the supervisor: {by_supervisor}"
    if asked:
        return f"stopped, as it was asked to, with code {code}"
    if code >= 0:
        return f"ended by itself with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if code == -signal.SIGKILL and kernel_killed:
        return f"killed by {name}, not by the supervisor: the kernel has killed processes meanwhile, as memory ran out"
    return f"killed by {name}, not by the supervisor"


def last_lines(log: Path, begin: int = 0) -> tuple[str, ...]:
    """Return the last lines of a log, none from before the byte `begin`, and none that only say where in a program."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(begin, log_bytes(log) - LINE_BYTES * LOG_LINES_SHOWN))
        lines = file.read().decode(errors="replace").splitlines()
        return tuple(line for line in lines if line.strip() and not STACK_FRAME.match(line))[-LOG_LINES_SHOWN:]
    return ()


def full_disk(directory: Path | None) -> Path | None:
    """Return a folder on which nothing can be written any more: `directory`, or one in it; None: there is space.

    Who writes by mapping a file into memory is killed by a full disk, or told of a fault in its memory.
    """
    if directory is None:
        return None
    with suppress(OSError):
        for one in (directory, *sorted(filter(Path.is_dir, directory.iterdir()))):
            space = os.statvfs(one)
            if space.f_blocks and space.f_bavail * space.f_frsize < FULL_BYTES:
                return one
    return None


def _stats() -> Iterator[list[str]]:
    """Yield the fields after the name in `stat` of each process; one may end while it is read."""
    for one in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            yield one.read_text(errors="replace").rpartition(")")[2].split()
