"""Topics are made though the brokers refuse them for a while; what is refused for good is said at once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from layerscope.events.kafka_client import faults
from layerscope.events.kafka_topics import LONGEST_PAUSE_SECONDS, make_topics
from layerscope.events.topics import Topic

FENCED = "Unable to replicate the partition 1 time(s): All brokers are currently fenced."
TOPIC = Topic("weekly", partitions=2, retention_ms=604_800_000)
LED, LEADERLESS = [(0, 1), (0, 2)], [(0, 1), (5, -1)]  # the error and the leader of each partition


class Brokers:
    """What the library's administrator is to its caller, with the answers of brokers that are played one after the other.

    A step is the error of a request for topics and its reason, or an exception, or the partitions that a topic has then.
    """

    def __init__(self, *steps: tuple[int, str] | Exception | list[tuple[int, int]]) -> None:
        self.steps = list(steps)
        self.asked: list[dict[str, Any]] = []

    def create_topics(self, wanted: dict[str, Any], raise_errors: bool) -> dict[str, Any]:
        assert not raise_errors
        self.asked.append(wanted)
        step = self.steps[0]
        if isinstance(step, Exception):
            raise self.steps.pop(0)  # type: ignore[misc]
        code, reason = self.steps.pop(0) if isinstance(step, tuple) else (36, None)  # it is there already
        return {"topics": [{"name": name, "error_code": code, "error_message": reason} for name in wanted]}

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        leaders = self.steps.pop(0)
        assert isinstance(leaders, list)
        partitions = [
            {"partition_index": number, "error_code": code, "leader_id": leader}
            for number, (code, leader) in enumerate(leaders)
        ]
        return [{"name": name, "error_code": 0, "partitions": partitions} for name in names]


def make(brokers: Brokers, **settings: Any) -> list[float]:
    """Make a topic, and return the pauses that were made."""
    pauses: list[float] = []
    make_topics(brokers, [TOPIC], -1, **{"wait": pauses.append, **settings})
    assert brokers.steps == []
    return pauses


def test_a_topic_is_asked_for_with_what_it_says() -> None:
    brokers = Brokers((0, ""), LED)
    assert make(brokers) == []
    expected = {"num_partitions": 2, "replication_factor": -1, "configs": {"retention.ms": "604800000"}}
    assert brokers.asked == [{"weekly": expected}]


@pytest.mark.parametrize(
    "refusal",
    [
        (38, FENCED),
        (38, "The target replication factor of 3 cannot be reached because only 1 broker(s) are registered."),
        (7, "The request timed out."),
        (41, "This is not the correct controller for this cluster."),
        (89, "The throttling quota has been exceeded."),
        RuntimeError("Failed to find active controller id!"),
        faults.RequestTimedOutError("Request timed out after 4000 ms"),
        faults.KafkaTimeoutError("no answer"),
        faults.KafkaConnectionError("[Errno 104] Connection reset by peer"),
        faults.NodeNotReadyError("1"),
        LEADERLESS,
        [(0, -1), (0, -1)],
    ],
    ids=repr,
)
def test_what_passes_by_itself_is_waited_for(refusal: Any) -> None:
    brokers = Brokers(*itertools.repeat(refusal, 3), (0, ""), LED)
    assert make(brokers) == [0.05, 0.1, 0.2]


def test_a_replica_that_is_away_does_not_matter_where_there_is_a_leader() -> None:
    assert make(Brokers((0, ""), [(9, 1), (0, 2)])) == []


def test_pauses_grow_to_a_longest_and_the_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pauses = make(Brokers(*itertools.repeat((38, FENCED), 12), (0, ""), LED))
    assert pauses == sorted(pauses)
    assert pauses[-3:] == [LONGEST_PAUSE_SECONDS] * 3
    (line,) = caplog.messages
    assert FENCED in line
    assert "weekly" in line


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (17, faults.InvalidTopicError),
        (37, faults.InvalidPartitionsError),
        (29, faults.TopicAuthorizationFailedError),
        (44, faults.PolicyViolationError),
    ],
)
def test_what_is_refused_for_good_is_said_at_once(code: int, fault: type[Exception]) -> None:
    brokers, pauses = Brokers((code, "because")), list[float]()
    with pytest.raises(fault, match="weekly: because"):
        make_topics(brokers, [TOPIC], -1, wait=pauses.append)
    assert pauses == []


def test_patience_ends_with_the_brokers_reason_and_for_how_long_they_were_asked() -> None:
    endless: Iterable[Any] = itertools.repeat((38, FENCED), 1000)
    with pytest.raises(faults.InvalidReplicationFactorError) as raised:
        make(Brokers(*endless), patience=0.0)
    assert FENCED in str(raised.value)
    assert "weekly" in str(raised.value)
    assert "asked again and again for 0 s" in str(raised.value)


def test_who_closes_the_log_does_not_wait_for_its_topics() -> None:
    with pytest.raises(faults.Cancelled, match="closed"):
        make(Brokers((38, FENCED)), wait=lambda _: True)
