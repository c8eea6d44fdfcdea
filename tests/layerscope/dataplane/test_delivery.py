"""Each answer, and what becomes of the event: the rows of what was observed on Knative's Kafka data plane.

The waits are scaled down by twenty; everything else is as it was there, and each test says where it is meant to differ.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from cloudevents.core.formats.json import JSONFormat

from layerscope.dataplane.plane import DataPlane
from layerscope.dataplane.resources import DeliveryPolicy
from layerscope.dataplane.subscribers import client_at
from tests.layerscope.contracts.answers import STRUCTURED, TABLE, Case
from tests.layerscope.dataplane.scripted import (
    ANSWER,
    BINARY,
    DESTINATION,
    EVENTS,
    HEADERS_ONLY,
    LETTERS,
    POLICY,
    TEXT,
    Reply,
    Scripted,
    an_event,
    contents,
    deliver,
    new_log,
    publish,
    running,
    source,
    system,
    trigger,
    uncommitted,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_an_answer_of_a_trigger_has_its_outcome(case: Case) -> None:
    check(case, ordered=False)


@pytest.mark.parametrize("name", ["204", "200 + binary event", "200 text", "422 + body", "503", "503 then 204"])
def test_order_changes_nothing_about_the_outcome(name: str) -> None:
    check(TABLE[name], ordered=True)


def check(case: Case, *, ordered: bool) -> None:
    subscriber, log = Scripted(case.answers), new_log()
    # What replies is delivered too; it is taken, so that the case ends.
    subscriber.by_id["answer"] = (Reply(204),)
    publish(log, an_event())
    subscription = trigger(ordered=ordered)
    asyncio.run(deliver(subscriber, subscription, log))

    assert [one for one in subscriber.ids() if one == "1"] == ["1"] * case.calls
    assert len([event for event in contents(log, EVENTS) if event.id == "answer"]) == case.replied
    letters = contents(log, LETTERS)
    assert len(letters) == (case.told is not None)
    for letter in letters:
        assert letter.id == "1"
        assert tuple(sorted(name for name in letter.extensions if name.startswith("knativeerror"))) == case.told
        assert letter.extensions["knativeerrordest"] == DESTINATION
        assert letter.extensions.get("knativeerrorcode", "") == case.code
    assert uncommitted(log, subscription) == []


@pytest.mark.parametrize(
    "answer", [Reply(200, TEXT, b"fine"), Reply(200, BINARY, b"{}"), Reply(204), Reply(204, HEADERS_ONLY)]
)
def test_a_source_discards_whatever_a_good_answer_holds(answer: Reply) -> None:
    subscriber, log = Scripted((answer,)), new_log()
    publish(log, an_event())
    subscription = source()
    asyncio.run(deliver(subscriber, subscription, log))
    assert len(subscriber.calls) == 1
    assert len(contents(log, EVENTS)) == 1
    assert contents(log, LETTERS) == []
    assert uncommitted(log, subscription) == []


@pytest.mark.parametrize(("status", "calls"), [(422, 1), (503, 2)])
def test_without_a_dead_letter_sink_an_event_is_given_up(status: int, calls: int) -> None:
    subscriber, log = Scripted((Reply(status),)), new_log()
    publish(log, an_event())
    subscription = trigger(replace(POLICY, retry=1, dead_letter_topic=None))
    plane = asyncio.run(deliver(subscriber, subscription, log))
    assert len(subscriber.calls) == calls
    assert uncommitted(log, subscription) == []
    (status_of_it,) = asyncio.run(plane.status())
    assert (status_of_it.attempts, status_of_it.lost, status_of_it.dead_letters) == (calls, 1, 0)


def test_reply_is_a_binary_record_keyed_by_partitionkey_and_carries_the_data() -> None:
    subscriber, log = Scripted((Reply(200, STRUCTURED, JSONFormat().write(ANSWER)),)), new_log()
    subscriber.by_id["answer"] = (Reply(204),)
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(), log))
    (record,) = [one for one in log.backlog(EVENTS, "nobody") if ("ce_id", b"answer") in one.headers]
    assert record.key == b"d/m"
    assert dict(record.headers)["content-type"] == b"application/json"
    assert json.loads(record.value or b"") == {"a": 1}


def test_a_reply_of_headers_alone_needs_no_key_to_be_stored() -> None:
    headers = tuple(pair for pair in HEADERS_ONLY if pair[0] != "ce-partitionkey")
    subscriber, log = Scripted((Reply(204, headers),), by_id={"answer": (Reply(204),)}), new_log()
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(), log))
    (record,) = [one for one in log.backlog(EVENTS, "nobody") if ("ce_id", b"answer") in one.headers]
    assert (record.key, record.value) == (None, b"")
    assert contents(log, LETTERS) == []


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (DeliveryPolicy(3, "exponential", 0.02, 2.0, LETTERS), [0.04, 0.08, 0.16]),
        (DeliveryPolicy(2, "linear", 0.05, 2.0, LETTERS), [0.05, 0.10]),
    ],
    ids=["exponential", "linear"],
)
def test_delays_grow_from_the_first_retry_on(policy: DeliveryPolicy, delays: list[float]) -> None:
    subscriber, log = Scripted((Reply(503),)), new_log()
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(policy), log))
    gaps = subscriber.gaps()
    assert len(gaps) == len(delays)
    # A sleep never ends early; how late it ends is up to the machine.
    assert all(gap >= delay - 0.002 for gap, delay in zip(gaps, delays, strict=True))
    assert sum(gaps) < sum(delays) + 5.0


def test_a_call_past_its_timeout_goes_on_while_the_next_one_begins() -> None:
    subscriber, log = Scripted((Reply(204, seconds=1.5),)), new_log()
    publish(log, an_event())
    policy = DeliveryPolicy(2, "exponential", 0.01, 0.1, LETTERS)
    asyncio.run(deliver(subscriber, trigger(policy), log))
    assert len(subscriber.calls) == 3
    assert subscriber.most_under_way == 3
    (letter,) = contents(log, LETTERS)
    assert "knativeerrorcode" not in letter.extensions
    assert letter.extensions["knativeerrordest"] == DESTINATION


def test_a_refused_connection_is_retried_and_ends_as_a_dead_letter_without_code() -> None:
    async def run() -> None:
        async with Scripted().listening() as url:
            pass
        async with running(log, system(trigger()), url) as plane, asyncio.timeout(300):
            await plane.idle()
            (status,) = await plane.status()
            assert (status.attempts, status.dead_letters, status.delivered) == (4, 1, 0)

    log = new_log()
    publish(log, an_event())
    asyncio.run(run())
    (letter,) = contents(log, LETTERS)
    assert "knativeerrorcode" not in letter.extensions


def test_303_is_followed_by_get_with_the_event_as_body() -> None:
    subscriber = Scripted((Reply(303, (("location", "/there"),)), Reply(204)))
    log = new_log()
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(), log))
    assert [(call.method, call.path, call.body) for call in subscriber.calls] == [
        ("POST", "/", b'{"a":1}'),
        ("GET", "/there", b'{"a":1}'),
    ]
    assert contents(log, LETTERS) == []


def test_a_stop_does_not_wait_for_a_retry_and_leaves_the_event_to_the_next_start() -> None:
    log, subscription = new_log(), trigger(DeliveryPolicy(3, "linear", 30.0, 2.0, LETTERS), ordered=True)
    subscriber = Scripted((Reply(503), Reply(204)))
    publish(log, an_event())

    async def run() -> float:
        async with subscriber.listening() as url, client_at(url) as client:
            plane = DataPlane(system(subscription), log, {"s": client})
            work = asyncio.create_task(plane.run())
            while not subscriber.finished:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await plane.stop()
            await work
            return time.monotonic() - began

    assert asyncio.run(run()) < 10.0
    assert len(uncommitted(log, subscription)) == 1
    asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.ids() == ["1", "1"]
    assert contents(log, LETTERS) == []
