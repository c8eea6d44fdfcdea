"""What came of the events that functions were sent, counted by function and outcome for `/metrics`."""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import Counter

Outcome = Literal["computed", "already_there", "refused", "transient", "failed"]
"""Made now; made before; the model cannot have it; to be offered again; answered so that it becomes a dead letter."""

TRANSIENT: Final = frozenset({408, 409, 429, 503})
"""The statuses of circumstances; every other error is one of the event or of the work."""

_outcomes = Counter("layerscope_outcomes", "What came of events, by outcome", ["function", "outcome"])


def count(function: str, outcome: Outcome) -> None:
    """Count one outcome of a function."""
    _outcomes.labels(function, outcome).inc()


def count_error(function: str, status: int) -> None:
    """Count an answer that is an error."""
    count(function, "transient" if status in TRANSIENT else "failed")
