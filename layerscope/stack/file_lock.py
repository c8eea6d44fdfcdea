"""A lock that a process holds for as long as it lives: who runs a stack, who installs its programs."""

from __future__ import annotations

import fcntl
from typing import IO


def try_lock(file: IO[str], kind: int) -> bool:
    """Lock the file unless somebody else has it; `kind` is fcntl.LOCK_SH or LOCK_EX. Closing the file unlocks it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
