"""What "in time" means on a machine that is slow just now: seconds of CPU time, as a quiet one would have taken them."""

from __future__ import annotations

import ast
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

QUIET: Final = 0.25
"""Seconds of CPU time in which Python parses a hundred thousand numbers on a quiet machine of 2026."""
SOON: Final = 3.0


@contextmanager
def soon() -> Iterator[None]:
    """Let this thread compute for SOON; what the collector takes for what earlier tests have left is not counted."""
    gc.collect()
    gc.freeze()
    start = time.thread_time()
    try:
        yield
        spent = time.thread_time() - start
    finally:
        gc.unfreeze()
    assert (found := quiet(spent)) < SOON, f"{spent:.1f} s of CPU time, {found:.1f} s on a quiet machine"


def quiet(spent: float) -> float:
    """Return what so many seconds of CPU time would be on a quiet machine; where they are few, they are."""
    return spent if spent < 1 else spent * QUIET / _hundred_thousand_numbers()


def _hundred_thousand_numbers() -> float:
    start = time.thread_time()
    ast.parse("[" + "1, " * 100_000 + "]")
    return time.thread_time() - start
