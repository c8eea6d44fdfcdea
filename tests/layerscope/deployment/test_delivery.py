"""Timeouts: longer than what may be before a call, and within what Serving allows."""

from __future__ import annotations

import pytest

from layerscope.deployment.delivery import MARGIN_SECONDS, SERVING_MOST_SECONDS, iso_duration, timeout_seconds


@pytest.mark.parametrize(
    ("call", "in_flight", "replicas", "expected"),
    [(30, 3, 1, 150), (30, 6, 1, 240), (120, 3, 1, 510), (60, 8, 1, 570), (10, 3, 0, 90), (60, 3, 3, 150)],
)
def test_a_call_is_waited_for_after_all_that_may_be_before_it(
    call: float, in_flight: int, replicas: int, expected: int
) -> None:
    assert timeout_seconds(call, in_flight, replicas) == expected
    assert expected >= call * (in_flight / max(replicas, 1) + 1) + MARGIN_SECONDS


def test_what_serving_would_cut_off_is_refused_with_what_to_do() -> None:
    assert timeout_seconds(135, 3) == 570
    with pytest.raises(ValueError, match=r"3 calls of 136 s .* 544 s, and Serving ends .* 600 s: lower the limit"):
        timeout_seconds(136, 3)
    with pytest.raises(ValueError, match="lower the limit or the partitions, or raise the replicas"):
        timeout_seconds(120, 8)
    assert timeout_seconds(120, 8, replicas=4) + MARGIN_SECONDS <= SERVING_MOST_SECONDS


@pytest.mark.parametrize(("seconds", "said"), [(0, "PT0S"), (30, "PT30S"), (60, "PT1M"), (570, "PT9M30S")])
def test_seconds_are_said_as_kubernetes_people_say_them(seconds: int, said: str) -> None:
    assert iso_duration(seconds) == said
