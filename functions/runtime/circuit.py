"""A circuit breaker: a function that fails for one model after the other takes none until a trial succeeds.

    closed ─ several models fail in a row ─▶ open ─ a pause ─▶ half open: one trial ─▶ closed, or open for longer

The fault is then in the function or in what it needs, and not in the models: to try them all would only make dead
letters of them. The pattern is of M. Nygard, Release It! (2007).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Gauge

from layerscope.functions.runtime.circumstances import shortage
from layerscope.schemas.errors import CircuitOpen, EventError, LayerscopeError, WorkFailed

FAILURES: Final = 5
PAUSE_SECONDS: Final = 30.0
LONGEST_PAUSE_SECONDS: Final = 600.0

_open = Gauge(
    "layerscope_circuit_open", "1 while a function takes no model, as it failed for several in a row", ["function"]
)


class Circuit:
    """That of one function; `clock` returns seconds."""

    def __init__(self, function: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin closed."""
        self._function = function
        self._clock = clock
        self._failed: dict[str, str] = {}  # since the last success, by model
        self._waiting: set[str] = set()  # turned away, and not known to fail
        self._trial: str | None = None
        self._opened = 0  # times in a row
        self._until = 0.0
        _open.labels(function).set(0)

    @property
    def reason(self) -> str | None:
        """Return why nothing is taken at present; None where something is, if only for a trial."""
        left = self._until - self._clock()
        if not self._opened or left <= 0:
            return None
        last = next(reversed(self._failed.values()))
        return f"{self._function} failed for {len(self._failed)} models in a row ({last}); the next trial is in {left:.0f} s"

    @contextmanager
    def trying(self, subject: str) -> Iterator[None]:
        """Let the work for one model through, and learn from how the block ends.

        Raises:
            CircuitOpen: nothing is taken at present.
        """
        self._check(subject)
        self._trial = subject if self._opened else None
        self._waiting.discard(subject)
        try:
            yield
        except LayerscopeError as error:
            if isinstance(error, WorkFailed):
                self._fail(subject, str(error))
            elif not isinstance(error, EventError):  # a refusal, as a function makes that works
                self._succeed()
            raise
        except Exception as error:
            if shortage(error) is None:
                self._fail(subject, type(error).__name__)
            raise
        else:
            self._succeed()
        finally:
            if self._trial == subject:
                self._trial = None

    def _check(self, subject: str) -> None:
        reason = self.reason
        if reason is None and self._opened:
            if self._trial is not None:
                reason = f"{self._function} is being tried with another model"
            elif subject in self._failed and self._waiting and self._clock() < self._until + PAUSE_SECONDS:
                reason = f"{self._function} is to be tried with a model that has not failed"
        if reason is not None:
            if subject not in self._failed:
                self._waiting.add(subject)
            raise CircuitOpen(reason)

    def _succeed(self) -> None:
        self._failed.clear()
        self._waiting.clear()
        self._opened = 0
        _open.labels(self._function).set(0)

    def _fail(self, subject: str, reason: str) -> None:
        self._failed.pop(subject, None)
        self._failed[subject] = reason
        # What was under way as the circuit opened says nothing new.
        if self._trial == subject if self._opened else len(self._failed) >= FAILURES:
            self._until = self._clock() + min(PAUSE_SECONDS * 2**self._opened, LONGEST_PAUSE_SECONDS)
            self._opened += 1
            _open.labels(self._function).set(1)
