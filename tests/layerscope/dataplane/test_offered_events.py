"""From the record to the request: what a subscriber is sent, as was observed on Knative's Kafka data plane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerscope.dataplane.delivery import Delivery, Tally
from layerscope.dataplane.offered_events import event_of
from layerscope.dataplane.resources import Subscription
from layerscope.dataplane.subscribers import Subscriber, client_of
from layerscope.events.cloudevent import CloudEvent
from layerscope.events.kafka import KafkaMessage, Record, to_record
from layerscope.events.log import check as check_message
from layerscope.events.memory import MemoryLog
from tests.layerscope.dataplane.scripted import (
    EVENTS,
    LETTERS,
    Call,
    Scripted,
    an_event,
    contents,
    deliver,
    new_log,
    publish,
    service,
    source,
    trigger,
    uncommitted,
)


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


def test_an_event_with_every_kind_of_character_arrives_as_it_was() -> None:
    log = new_log()
    sent = an_event(note='a "quoted" ☃ %41').with_attributes(subject="d/Ü m%2F/1")
    publish(log, sent)
    event = only_call(log).event
    assert (event.subject, event.extensions["note"]) == (sent.subject, sent.extensions["note"])


NAMES = st.one_of(
    st.sampled_from(["ce_id", "ce_source", "ce_type", "ce_specversion", "content-type"]), st.text(max_size=8)
)


VALUES = st.one_of(st.sampled_from([b"1.0", b"/s", b"text/plain; \xc3\xa9"]), st.binary(max_size=12))


@pytest.mark.slow
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
