"""Each answer, and what becomes of the event: the rows of what was observed on Knative's Kafka data plane.

The waits are scaled down by twenty; everything else is as it was there, and each test says where it is meant to differ.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from events.cloudevent import CloudEvent
from events.http import to_binary
from events.json_format import to_object
from events.kafka import KafkaMessage, Record, to_record
from events.log import LogUnavailable
from events.log import check as check_message
from events.memory import MemoryLog
from layerscope.dataplane import DataPlane
from layerscope.delivery import Delivery, Tally
from layerscope.manifests import DeliveryPolicy, Subscription
from layerscope.records import event_of
from layerscope.subscribers import Subscriber, client_at, client_of
from tests.layerscope.scripted import (
    EVENTS,
    LETTERS,
    POLICY,
    RESET,
    Call,
    Reply,
    Scripted,
    an_event,
    contents,
    deliver,
    new_log,
    publish,
    running,
    service,
    source,
    system,
    trigger,
    uncommitted,
    with_topics,
)

DESTINATION = "http://s.demo.svc.cluster.local/"
ANSWER = replace(an_event("answer"), type="io.layerscope.answer.v1")
BINARY = tuple(to_binary(ANSWER)[0].items())
STRUCTURED = (("content-type", "application/cloudevents+json"),)
HEADERS_ONLY = tuple((name, value) for name, value in BINARY if name.startswith("ce-"))
NO_ID = tuple((name, value) for name, value in BINARY if name != "ce-id")
BATCH = (("content-type", "application/cloudevents-batch+json"),)
TEXT = (("content-type", "text/plain"),)


@dataclass(frozen=True)
class Case:
    """Answers; how often the subscriber is called; what the dead letter says, if there is one; whether one replied."""

    answers: tuple[Reply, ...]
    calls: int = 1
    told: tuple[str, ...] | None = None  # dest, code, data: which of them the dead letter has; None: no dead letter
    code: str = ""
    replied: bool = False


DEST = ("knativeerrordest",)
CODE = ("knativeerrorcode", "knativeerrordest")
DATA = ("knativeerrorcode", "knativeerrordata", "knativeerrordest")

TABLE = {
    "204": Case((Reply(204),)),
    "202 empty": Case((Reply(202),)),
    "200 empty": Case((Reply(200),)),
    "200 + binary event": Case((Reply(200, BINARY, ANSWER.data or b""),), replied=True),
    "202 + binary event": Case((Reply(202, BINARY, ANSWER.data or b""),), replied=True),
    "200 + structured event": Case((Reply(200, STRUCTURED, to_object(ANSWER)),), replied=True),
    "200 + ce- headers without body": Case((Reply(200, HEADERS_ONLY),), replied=True),
    "204 + ce- headers": Case((Reply(204, HEADERS_ONLY),), replied=True),
    "200 text": Case((Reply(200, TEXT, b"fine"),), told=DEST),
    "200 JSON": Case((Reply(200, (("content-type", "application/json"),), b"{}"),), told=DEST),
    "200 batch": Case((Reply(200, BATCH, b"[" + to_object(ANSWER) + b"]"),), told=DEST),
    "200 event without id": Case((Reply(200, NO_ID, ANSWER.data or b""),), told=DEST),
    **{str(code): Case((Reply(code),), told=CODE, code=str(code)) for code in (400, 401, 403, 410, 413, 422, 425)},
    "422 + body": Case((Reply(422, TEXT, b"why"),), told=DATA, code="422"),
    "500 + event": Case((Reply(500, BINARY, b"{}"),), calls=4, told=DATA, code="500"),
    **{
        str(code): Case((Reply(code),), calls=4, told=CODE, code=str(code))
        for code in (404, 408, 409, 429, 500, 501, 502, 503, 504)
    },
    "503 then 204": Case((Reply(503), Reply(204)), calls=2),
    "503 then event": Case((Reply(503), Reply(200, BINARY, b"{}")), calls=2, replied=True),
    "503 then 422": Case((Reply(503), Reply(422)), calls=2, told=CODE, code="422"),
    "429 + Retry-After": Case((Reply(429, (("retry-after", "5"),)), Reply(204)), calls=2),
    "reset": Case((RESET,), calls=4, told=DEST),
    "reset then 204": Case((RESET, Reply(204)), calls=2),
    "503 then reset": Case((Reply(503), RESET), calls=4, told=DEST),
    **{str(code): Case((Reply(code),), told=CODE, code=str(code)) for code in (300, 301, 302, 304, 307, 308)},
    "301 + Location": Case((Reply(301, (("location", "/there"),)),), told=CODE, code="301"),
    "303 without Location": Case((Reply(303),), told=CODE, code="303"),
}


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
    subscriber, log = Scripted((Reply(200, STRUCTURED, to_object(ANSWER)),)), new_log()
    subscriber.by_id["answer"] = (Reply(204),)
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(), log))
    (record,) = [one for one in log.backlog(EVENTS, "nobody") if ("ce_id", b"answer") in one.headers]
    assert record.key == b"d/m"
    assert dict(record.headers)["content-type"] == b"application/json"
    assert json.loads(record.value or b"") == {"a": 1}


def test_a_dead_letter_keeps_the_event_and_the_first_1024_bytes_of_the_reason() -> None:
    body = bytes(range(256)) * 8
    subscriber, log = Scripted((Reply(422, TEXT, body),)), new_log()
    publish(log, an_event(lane="replay"))
    asyncio.run(deliver(subscriber, trigger(), log))
    (letter,) = contents(log, LETTERS)
    assert (letter.id, letter.type, letter.subject, letter.data) == ("1", an_event().type, "d/m/1", b'{"a":1}')
    assert letter.extensions["lane"] == "replay"
    assert base64.b64decode(letter.extensions["knativeerrordata"]) == body[:1024]
    assert {"knativekafkapartition", "knativekafkaoffset"} <= letter.extensions.keys()


def test_kne_headers_become_extensions_without_their_prefix() -> None:
    subscriber, log = Scripted((Reply(422, (("kne-reason", "x"), ("KNE-Class", "y"))),)), new_log()
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(), log))
    (letter,) = contents(log, LETTERS)
    assert (letter.extensions["reason"], letter.extensions["class"]) == ("x", "y")


def test_kne_header_that_would_wedge_the_genuine_data_plane_is_told_about_and_made_to_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Deliberately different: there the event is never committed and an ordered partition stands still for good.
    headers = (("kne-error-class", "x"), ("kne-id", "y"), ("kne-", "z"), ("kne-odd", "a\x07b"))
    subscriber, log = Scripted((Reply(422, headers),)), new_log()
    publish(log, an_event(), an_event("2"))
    subscription = trigger(ordered=True)
    with caplog.at_level(logging.ERROR):
        asyncio.run(deliver(subscriber, subscription, log))
    letters = contents(log, LETTERS)
    assert [letter.id for letter in letters] == ["1", "2"]
    assert letters[0].extensions["errorclass"] == "x"
    assert letters[0].extensions["odd"] == "a\ufffdb"
    assert "kne-error-class" in caplog.text
    assert uncommitted(log, subscription) == []


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
        async with running(log, system(trigger()), url) as plane, asyncio.timeout(30):
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


def only_call(log: MemoryLog) -> Call:
    subscriber = Scripted()
    asyncio.run(deliver(subscriber, trigger(), log))
    (call,) = subscriber.calls
    return call


def test_a_request_is_the_event_in_binary_mode_and_says_where_it_lay() -> None:
    log = new_log()
    publish(log, an_event(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    call = only_call(log)
    assert (call.method, call.path, call.body) == ("POST", "/", b'{"a":1}')
    assert (call.header("prefer"), call.header("kn-namespace")) == ("reply", "demo")
    assert (call.header("ce-subject"), call.header("content-type")) == ("d/m/1", "application/json")
    assert (call.header("ce-knativekafkapartition"), call.header("ce-knativekafkaoffset")) == ("1", "0")
    assert call.header("ce-traceparent") == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert call.header("traceparent") is None


def test_traceparent_of_the_record_and_not_of_the_event_is_forwarded_as_header() -> None:
    log = new_log()
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))
    log.publish(EVENTS, KafkaMessage(None, b"x", (*headers, ("traceparent", b"00-1-2-01"))))
    assert only_call(log).header("traceparent") == "00-1-2-01"


STRUCTURED_RECORD = json.dumps(
    {"specversion": "1.0", "id": "S", "source": "/s", "type": "t", "data": {"b": 2}}
).encode()


def test_a_structured_record_is_delivered_in_binary_mode_and_wins_over_headers() -> None:
    log = new_log()
    headers = (("content-type", b"application/cloudevents+json"), ("ce_id", b"other"), ("ce_specversion", b"1.0"))
    log.publish(EVENTS, KafkaMessage(None, STRUCTURED_RECORD, headers))
    call = only_call(log)
    assert (call.header("ce-id"), json.loads(call.body)) == ("S", {"b": 2})


def test_a_record_without_value_is_an_event_without_data() -> None:
    log = new_log()
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))
    log.publish(EVENTS, KafkaMessage(b"k", None, headers))
    call = only_call(log)
    assert (call.header("ce-id"), call.body, call.header("content-type")) == ("1", b"", None)


@pytest.mark.parametrize("headers", [(), (("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_type", b"t"))])
def test_a_trigger_discards_and_commits_a_record_that_is_no_event(headers: tuple[tuple[str, bytes], ...]) -> None:
    subscriber, log, subscription = Scripted(), new_log(), trigger()
    log.publish(EVENTS, KafkaMessage(b"k", b"{}", headers))
    plane = asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.calls == []
    assert contents(log, LETTERS) == []
    assert uncommitted(log, subscription) == []
    assert asyncio.run(plane.status())[0].discarded == 1


def test_a_source_wraps_a_record_that_is_no_event() -> None:
    subscriber, log = Scripted(), new_log()
    headers = (("X-Custom-1", b"v"), ("Content-Type", b"Application/JSON"))
    log.publish(EVENTS, KafkaMessage(b"models/a\xff\n", b'{"Records":[]}', headers))
    asyncio.run(deliver(subscriber, source(), log))
    (call,) = subscriber.calls
    (record,) = log.backlog(EVENTS, "nobody")
    event = call.event
    assert call.body == b'{"Records":[]}'
    assert event.type == "dev.knative.kafka.event"
    assert event.id == f"partition:{record.partition}/offset:0"
    assert event.source == f"/apis/v1/namespaces/demo/kafkasources/minio#{EVENTS}"
    assert event.subject == f"partition:{record.partition}#0"
    assert event.time is not None
    assert event.datacontenttype == "application/json"
    assert event.extensions["kafkaheaderxcustom1"] == "v"
    assert event.extensions["key"] == event.extensions["partitionkey"] == "models/a\ufffd\ufffd"


def test_a_wrapped_notification_has_no_content_type_and_its_body_as_it_was() -> None:
    subscriber, log = Scripted(), new_log()
    log.publish(EVENTS, KafkaMessage(b"models/a.pth", b'{"Records":[]}'))
    asyncio.run(deliver(subscriber, source(), log))
    (call,) = subscriber.calls
    assert call.header("content-type") is None
    assert call.body == b'{"Records":[]}'


def test_a_source_wraps_half_an_event_and_passes_a_whole_one() -> None:
    subscriber, log = Scripted(), new_log()
    log.publish(
        EVENTS, KafkaMessage(b"k", b"{}", (("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_type", b"t")))
    )
    publish(log, an_event())
    asyncio.run(deliver(subscriber, source(), log))
    by_type = {call.event.type: call.event for call in subscriber.calls}
    assert by_type["dev.knative.kafka.event"].extensions["kafkaheadercesource"] == "/s"
    assert by_type[an_event().type].id == "1"


class FailingLog(MemoryLog):
    """A log that does not take messages for a topic until told that it is well."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.topic, self.well, self.refused = topic, False, 0

    def publish(self, topic: str, message: KafkaMessage) -> None:
        if topic == self.topic and not self.well and ("ce_id", b"1") not in message.headers:
            self.refused += 1
            raise LogUnavailable("down")
        super().publish(topic, message)


class LetterlessLog(FailingLog):
    """The same for whatever event."""

    def publish(self, topic: str, message: KafkaMessage) -> None:
        if topic == self.topic and not self.well:
            self.refused += 1
            raise LogUnavailable("down")
        MemoryLog.publish(self, topic, message)


@pytest.mark.parametrize("kind", ["dead letter", "reply"])
def test_an_event_is_not_committed_before_its_dead_letter_or_reply_is_stored(kind: str) -> None:
    # Deliberately different: there a dead letter that cannot be stored is given up, and the event with it.
    log = with_topics(LetterlessLog(LETTERS) if kind == "dead letter" else FailingLog(EVENTS))
    publish(log, an_event())
    subscription = trigger()
    subscriber = Scripted(by_id={"1": (Reply(422) if kind == "dead letter" else Reply(200, BINARY, b"{}"),)})

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            async with asyncio.timeout(30):
                while log.refused < 2:
                    await asyncio.sleep(0.01)
            assert len(uncommitted(log, subscription)) == 1
            log.well = True
            async with asyncio.timeout(30):
                await plane.idle()

    asyncio.run(run())
    assert subscriber.ids().count("1") == 1
    assert uncommitted(log, subscription) == []
    assert [e.id for e in contents(log, LETTERS)] == (["1"] if kind == "dead letter" else [])
    assert [e.id for e in contents(log, EVENTS)] == (["1"] if kind == "dead letter" else ["1", "answer"])


def test_a_stop_while_the_dead_letter_cannot_be_stored_leaves_the_event_for_the_next_start() -> None:
    log = with_topics(LetterlessLog(LETTERS))
    publish(log, an_event())
    subscription = trigger()
    subscriber = Scripted((Reply(422),))

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url):
            async with asyncio.timeout(30):
                while not log.refused:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert len(uncommitted(log, subscription)) == 1
    log.well = True
    asyncio.run(deliver(subscriber, subscription, log))
    assert [letter.id for letter in contents(log, LETTERS)] == ["1"]


BIG = 999_000


@pytest.mark.parametrize("kind", ["reply", "dead letter"])
def test_what_is_too_large_for_the_log_ends_as_a_dead_letter(kind: str) -> None:
    log, subscription = new_log(), trigger()
    event = an_event() if kind == "reply" else replace(an_event(), data=b'"' + b"x" * BIG + b'"')
    publish(log, event)
    large = replace(ANSWER, data=b'"' + b"x" * 2_000_000 + b'"')
    answer = Reply(200, BINARY, large.data or b"") if kind == "reply" else Reply(422, TEXT, b"y" * 1024)
    asyncio.run(deliver(Scripted((answer,)), subscription, log))
    (letter,) = contents(log, LETTERS)
    if kind == "reply":
        assert "knativeerrorcode" not in letter.extensions
        assert letter.data == event.data
    else:
        assert letter.extensions["knativeerrorcode"] == "422"
        assert letter.data is None
    assert uncommitted(log, subscription) == []


def test_an_event_with_every_kind_of_character_arrives_as_it_was() -> None:
    log = new_log()
    sent: CloudEvent = replace(an_event(), subject="d/Ü m%2F/1", extensions={"note": 'a "quoted" ☃ %41'})
    publish(log, sent)
    event = only_call(log).event
    assert (event.subject, event.extensions["note"]) == (sent.subject, sent.extensions["note"])


NAMES = st.one_of(
    st.sampled_from(["ce_id", "ce_source", "ce_type", "ce_specversion", "content-type"]), st.text(max_size=8)
)
VALUES = st.one_of(st.sampled_from([b"1.0", b"/s", b"text/plain; \xc3\xa9"]), st.binary(max_size=12))


@given(
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=8),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=6),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
    kind=st.sampled_from([source(), trigger()]),
)
@settings(max_examples=100, deadline=None)
@example(None, None, [], 0, source())
@example(
    None, b"x", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")], 0, trigger()
)
def test_no_record_whatever_is_in_it_stops_the_data_plane(
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
    timestamp_ms: int,
    kind: Subscription,
) -> None:
    async def echo(scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 422, "headers": scope["headers"]})
        await send({"type": "http.response.body", "body": b"why"})

    letters: list[CloudEvent] = []

    async def publish_letter(topic: str, event: CloudEvent) -> None:
        check_message(to_record(event))
        letters.append(event)

    async def run(event: CloudEvent) -> None:
        async with client_of(echo) as client:
            subscriber = Subscriber(service(), client)
            await Delivery(kind, subscriber, publish_letter, asyncio.sleep, Tally()).deliver(event)

    event = event_of(Record(EVENTS, 0, 0, key, value, tuple(headers), timestamp_ms), kind)
    assert event is not None or kind.kind == "Trigger"
    if event is not None:
        asyncio.run(run(event))
        assert [letter.extensions["knativeerrorcode"] for letter in letters] == ["422"]


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
