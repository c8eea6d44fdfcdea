"""The Kafka binding: what travels, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import given
from hypothesis import strategies as st

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.kafka import KafkaMessage, Record, from_record, to_record
from tests.events.strategies import ATTRIBUTE_TEXT, EXTENSION_NAMES, JSON_VALUES, events

ATTRIBUTES = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))
STRUCTURED = ("content-type", b"application/cloudevents+json")


def faults_of(message: KafkaMessage) -> tuple[str, ...]:
    with pytest.raises(InvalidCloudEvent) as raised:
        from_record(message)
    return raised.value.faults


@pytest.mark.slow
@given(events())
def test_an_event_survives_the_trip_bytes_and_all(event: CloudEvent) -> None:
    assert from_record(to_record(event)) == event


@pytest.mark.slow
@given(events())
def test_an_event_survives_the_trip_in_one_value(event: CloudEvent) -> None:
    read = from_record(KafkaMessage(None, JSONFormat().write(event), (STRUCTURED,)))
    assert read == event


def test_an_event_is_written_as_the_specification_says() -> None:
    event = CloudEvent(
        {
            "id": "1",
            "source": "/s",
            "type": "t",
            "subject": "\u20ac",
            "datacontenttype": "application/json",
            "partitionkey": "digits/l\u00e9net",
        },
        b"{}",
    )
    assert to_record(event) == KafkaMessage(
        key="digits/l\u00e9net".encode(),
        value=b"{}",
        headers=(
            *ATTRIBUTES,
            ("ce_subject", "\u20ac".encode()),
            ("ce_partitionkey", "digits/l\u00e9net".encode()),
            ("content-type", b"application/json"),
        ),
    )


@pytest.mark.parametrize("data", [None, b""])
def test_no_data_is_no_value_and_empty_data_an_empty_one(data: bytes | None) -> None:
    event = CloudEvent({"id": "1", "source": "/s", "type": "t"}, data)
    assert to_record(event).value == data
    assert from_record(to_record(event)) == event


@pytest.mark.parametrize("key", [None, b"", b"other", b"\xff\xfe"])
def test_the_key_of_a_record_adds_nothing_to_its_event(key: bytes | None) -> None:
    read = from_record(KafkaMessage(key, b"data", ATTRIBUTES))
    assert read == CloudEvent({"id": "1", "source": "/s", "type": "t"}, b"data")


def test_without_a_partition_key_there_is_no_key() -> None:
    assert to_record(CloudEvent({"id": "1", "source": "/s", "type": "t"})).key is None


def test_a_record_where_it_lies_is_read_as_a_message() -> None:
    record = Record("topic", 0, 7, b"key", b"data", ATTRIBUTES, timestamp_ms=5)
    assert from_record(record) == from_record(KafkaMessage(b"key", b"data", ATTRIBUTES))


def test_the_content_type_decides_the_mode_whatever_else_is_there() -> None:
    value = b'{"specversion": "1.0", "id": "inside", "source": "/s", "type": "t"}'
    read = from_record(KafkaMessage(None, value, (*ATTRIBUTES, STRUCTURED)))
    assert read == CloudEvent({"id": "inside", "source": "/s", "type": "t"})


@pytest.mark.parametrize(
    "content_type", [b"Application/CloudEvents+JSON", b"application/cloudevents+json; charset=UTF-8"]
)
def test_the_content_type_has_no_case_and_may_have_parameters(content_type: bytes) -> None:
    value = b'{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}'
    read = from_record(KafkaMessage(None, value, (("Content-Type", content_type),)))
    assert read == CloudEvent({"id": "1", "source": "/s", "type": "t"})


@pytest.mark.parametrize(
    "headers", [(), (("content-type", b"application/json"),), (("traceparent", b"00-1"), ("cetype", b"t"))]
)
def test_a_record_that_does_not_mean_to_be_an_event_is_none(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert from_record(KafkaMessage(b"models/a.pth", b'{"Records": []}', headers)) is None


def test_data_are_not_looked_at() -> None:
    message = KafkaMessage(None, b"{", (*ATTRIBUTES, ("content-type", b"application/json")))
    read = from_record(message)
    assert read is not None
    assert read.data == b"{"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (KafkaMessage(None, None, ATTRIBUTES[1:]), "specversion is missing"),
        (KafkaMessage(None, None, (*ATTRIBUTES[:1], *ATTRIBUTES[2:])), "id is missing"),
        (KafkaMessage(None, None, (*ATTRIBUTES, ("ce_subject", b"\xff"))), "'ce_subject' is not UTF-8"),
        (KafkaMessage(None, None, (*ATTRIBUTES, ("content-type", b"\xff"))), "'content-type' is not UTF-8"),
        (KafkaMessage(None, None, (*ATTRIBUTES, ("ce_id", b"2"))), "'id' is given twice"),
        (KafkaMessage(None, None, (*ATTRIBUTES, ("ce_bad-name", b"2"))), "'bad-name' is no name"),
        (KafkaMessage(None, None, (*ATTRIBUTES, ("ce_datacontenttype", b"a/b"))), "ce_datacontenttype is not allowed"),
        (KafkaMessage(None, None, (STRUCTURED,)), "no value"),
        (KafkaMessage(None, b"[]", (STRUCTURED,)), "not a JSON object"),
        (KafkaMessage(None, b"[]", (("content-type", b"application/cloudevents-batch+json"),)), "batch"),
        (KafkaMessage(None, b"", (("content-type", b"application/cloudevents+avro"),)), "event format"),
    ],
)
def test_a_record_that_means_to_be_an_event_and_is_none_is_refused(message: KafkaMessage, fault: str) -> None:
    assert any(fault in one for one in faults_of(message))


def test_every_fault_of_a_record_is_told_at_once() -> None:
    found = faults_of(KafkaMessage(None, None, (("ce_id", b"\xff"), ("ce_time", b"now"), ("ce_specversion", b"2"))))
    for fault in ("'ce_id' is not UTF-8", "specversion", "source is missing", "type is missing", "time is"):
        assert any(fault in one for one in found), f"{fault} is not in {found}"


HEADERS = st.tuples(
    st.sampled_from(["ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time", "ce_", "CE_X", "content-type"])
    | st.text(max_size=6),
    st.sampled_from([b"1.0", b"/s", b"t", STRUCTURED[1], b"application/json"]) | st.binary(max_size=12),
)


@given(
    st.none() | st.binary(max_size=8),
    st.none() | st.binary(max_size=30) | JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.lists(HEADERS, max_size=8),
)
def test_whatever_lies_in_a_topic_is_an_event_or_refused_or_none(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    try:
        event = from_record(KafkaMessage(key, value, tuple(headers)))
    except InvalidCloudEvent as error:
        assert error.faults
    else:
        assert event is None or from_record(to_record(event)) == event


# Those who have the SDK and nothing else


@pytest.mark.slow
@given(events(data=JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_the_sdk_alone_reads_what_we_write(event: CloudEvent) -> None:
    message = to_record(event)
    headers = {name: value for name, value in message.headers if name != "ce_time"}
    read = sdk.from_binary(sdk.KafkaMessage(headers=headers, key=message.key, value=event.data), JSONFormat(), SdkEvent)
    theirs = {name: str(value) for name, value in read.get_attributes().items() if name != "time"}
    assert theirs == {name: value for name, value in event.attributes().items() if name != "time"}


@pytest.mark.slow
@given(
    st.dictionaries(EXTENSION_NAMES, ATTRIBUTE_TEXT, max_size=3),
    st.dictionaries(st.text("abc", max_size=3), JSON_VALUES, min_size=1, max_size=3),
    st.booleans(),
)
def test_we_read_what_the_sdk_alone_writes(extensions: dict[str, str], data: dict[str, Any], as_object: bool) -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json", **extensions}
    theirs = SdkEvent(attributes=attributes, data=data)
    message = (sdk.to_structured if as_object else sdk.to_binary)(theirs, JSONFormat())
    event = from_record(KafkaMessage(None, message.value, tuple(message.headers.items())))
    assert event is not None
    assert json.loads(event.data or b"") == data
    assert event.extensions == extensions
    assert (event.id, event.source, event.type, event.datacontenttype) == ("1", "/s", "t", "application/json")
