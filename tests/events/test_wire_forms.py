"""What lies on the wire is what lay there before events were the SDK's: nothing that is stored or deployed notices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.http import from_request, to_binary
from layerscope.events.kafka import KafkaMessage, from_record, to_record
from layerscope.schemas.events import ModelUploaded, ProductRequested, ProductWritten

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "wire_forms.json").read_text(encoding="utf-8")
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SUBJECT = "digits/lenet/1"
WHO = {"dataset": "digits", "model": "lenet", "version": "1"}


def timed(event: CloudEvent) -> CloudEvent:
    return event.with_attributes(time="2026-07-31T12:00:00.120Z")


def made() -> dict[str, CloudEvent]:
    put = ModelUploaded(bucket="models", key="digits/lenet/1.pth", etag="63f4", size=7, sequencer="18EA0999ACF56869")
    uploaded = timed(compose(put, source="/functions/announce", subject=SUBJECT))
    ask = ProductRequested(**WHO, product="evaluation")
    replayed = {"lane": "replay", "replayid": "7"}
    requested = timed(
        compose(ask, source="/functions/replay", subject=SUBJECT, cause=uploaded, traceparent=TRACE, **replayed)
    )
    headline = {"accuracy": 0.944, "worst class": "\u00dcnder \u20ac"}
    made = ProductWritten(**WHO, content="0" * 64, product="evaluation", address="r1-0", headline=headline)
    written = timed(compose(made, source="/functions/evaluation", subject=SUBJECT, cause=requested))
    foreign = CloudEvent(
        {
            "id": "Euro \u20ac \U0001f600",
            "source": "/s?a=%41",
            "type": 'their "type"',
            "subject": "d/\u00dc m%2F/1",
            "time": "1990-12-31T23:59:60.1234567-08:00",
            "datacontenttype": "text/plain; charset=utf-8",
            "dataschema": "urn:x",
            "note": "a 100% +b",
            "lane": "replay",
        },
        b"\x00\xff",
    )
    bare = CloudEvent({"id": "1", "source": "/s", "type": "t"})
    return {"uploaded": uploaded, "requested": requested, "written": written, "foreign": foreign, "bare": bare}


MADE = made()


def test_every_recorded_event_is_made_here() -> None:
    assert list(MADE) == list(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_an_event_travels_over_http_as_it_did(name: str) -> None:
    headers, body = to_binary(MADE[name])
    assert list(headers.items()) == list(RECORDED[name]["http headers"].items())
    assert body == RECORDED[name]["http body"].encode("latin-1")


@pytest.mark.parametrize("name", RECORDED)
def test_an_event_lies_in_kafka_as_it_did(name: str) -> None:
    assert to_record(MADE[name]) == record(name)


@pytest.mark.parametrize("name", RECORDED)
def test_what_travelled_before_is_read_as_the_same_event(name: str) -> None:
    headers = [(header.encode(), value.encode()) for header, value in RECORDED[name]["http headers"].items()]
    assert from_request(headers, RECORDED[name]["http body"].encode("latin-1")) == MADE[name]
    assert from_record(record(name)) == MADE[name]


def record(name: str) -> KafkaMessage:
    key, value = RECORDED[name]["kafka key"], RECORDED[name]["kafka value"]
    return KafkaMessage(
        None if key is None else key.encode(),
        None if value is None else value.encode("latin-1"),
        tuple((header, text.encode()) for header, text in RECORDED[name]["kafka headers"]),
    )
