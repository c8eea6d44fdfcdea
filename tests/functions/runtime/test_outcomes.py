"""What came of events is counted by function and outcome, each once, where /metrics is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import REGISTRY

from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.runtime.outcomes import TRANSIENT, Outcome
from layerscope.schemas.errors import (
    BodyLate,
    Busy,
    EventError,
    Ignored,
    InvalidEvent,
    Unavailable,
    WorkFailed,
)
from tests.functions.runtime.test_handler import Answering, System, event, post

OUTCOMES = get_args(Outcome)


@contextmanager
def counted(function: str, **expected: int) -> Iterator[None]:
    """Hold the counts of a block against what is expected; every outcome that is not named has to stay."""
    before = read(function)
    yield
    after = read(function)
    grown = {one: after[one] - before[one] for one in OUTCOMES if after[one] != before[one]}
    assert grown == expected


def read(function: str) -> dict[str, float]:
    def value(outcome: str) -> float:
        found = REGISTRY.get_sample_value("layerscope_outcomes_total", {"function": function, "outcome": outcome})
        return found or 0.0

    return {outcome: value(outcome) for outcome in OUTCOMES}


@pytest.mark.slow
def test_a_product_is_computed_once_and_then_already_there(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.predict()
    with counted("confusion_matrix", computed=1):
        asyncio.run(system.send(*[event()] * 4))  # they join one computation
    with counted("confusion_matrix", already_there=1):
        asyncio.run(system.send(event()))


@pytest.mark.slow
def test_a_refusal_is_counted_as_one_and_then_as_there(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.predict(non_finite=2)
    with counted("confusion_matrix", refused=1):
        asyncio.run(system.send(event()))
    with counted("confusion_matrix", already_there=1):
        asyncio.run(system.send(event()))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("the store does not answer"), "transient"),
        (Busy("full"), "transient"),
        (BodyLate("late"), "transient"),
        (WorkFailed("it crashed"), "failed"),
        (InvalidEvent("not ours"), "failed"),
        (ZeroDivisionError("a bug"), "failed"),
        (Ignored("gone"), None),
        (None, None),
    ],
)
def test_errors_are_told_apart_by_what_becomes_of_the_event(error: Exception | None, outcome: str | None) -> None:
    async def respond(_: CloudEvent) -> CloudEvent | None:
        if error is not None:
            raise error
        return None

    function = Answering(respond)
    with counted(function.name, **({outcome: 1} if outcome else {})):
        asyncio.run(post(function, event()))


def test_every_status_that_is_offered_again_is_transient() -> None:
    def below(kind: type[EventError]) -> set[int]:
        return {kind.status} | {status for one in kind.__subclasses__() for status in below(one)}

    assert below(EventError) & TRANSIENT == {408, 429, 503}
