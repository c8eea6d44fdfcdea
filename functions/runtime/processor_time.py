"""How long a process computed: what a limit counts, for the clock alone says as much of the machine as of the work."""

from __future__ import annotations

import sys
import time
from typing import Final

_LOOK_SECONDS: Final = 0.1
_AWAY_SECONDS: Final = 5.0
_MOVING: Final = 0.01


class ProcessorTime:
    """The time of one call in another process.

    `computed` are the seconds in which it had a processor: in each span its CPU time, but never more than the clock's,
    however many threads it has. On systems that do not say it, the clock's.
    """

    def __init__(self, pid: int) -> None:
        """Begin to count."""
        self.computed = 0.0
        self._pid = pid
        self._began = self._looked = self._moved = time.monotonic()
        self._used = self._cpu_seconds()

    @property
    def passed(self) -> float:
        """Return the seconds since the beginning, by the clock."""
        return time.monotonic() - self._began

    @property
    def still(self) -> float:
        """Return for how long the process has had less than a hundredth of a processor."""
        return time.monotonic() - self._moved

    def look(self) -> None:
        """Count what has passed since the last look; to be called often."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < _LOOK_SECONDS:
            return
        used = self._cpu_seconds()
        spent, self._used, self._looked = used - self._used, used, now
        self.computed += min(passed, spent)
        if spent > _MOVING * passed or passed > _AWAY_SECONDS:  # so long only if this process was stopped as well
            self._moved = now

    def _cpu_seconds(self) -> float:
        if sys.platform != "linux":
            return time.monotonic()
        try:
            return time.clock_gettime((~self._pid << 3) | 2)  # the CPU clock of a process, as clock_getcpuclockid(3)
        except OSError:  # gone, which its pipe tells
            return self._used
