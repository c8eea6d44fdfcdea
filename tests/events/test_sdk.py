"""Where the CloudEvents SDK departs from CloudEvents 1.0, and what we therefore do ourselves.

A test for each departure. One that fails says what is to be deleted: from then on the SDK does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from layerscope.events.attributes import Timestamp
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.http import from_request, to_binary
from layerscope.events.json_format import from_object
from layerscope.events.kafka import KafkaMessage, from_record, to_record

ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
FORMAT = JSONFormat()
JSON = "application/json"
STRUCTURED = "application/cloudevents+json"


def result(call: Callable[[], Any]) -> Any:
    """Return what a call comes to: also its exception, so that a repaired SDK fails with the sentence of the test."""
    try:
        return call()
    except Exception as error:
        return error


def still(departs: bool, ours: str) -> None:
    assert departs, f"the SDK is mended: use it, and delete {ours}"


def sdk_http(headers: dict[str, str] | None = None, body: bytes = b"", without: str = "") -> Any:
    """Return what the SDK reads of a request in binary mode."""
    carried = {f"ce-{name}": value for name, value in ATTRIBUTES.items() if name != without} | (headers or {})
    return result(lambda: http.from_binary(http.HTTPMessage(carried, body), FORMAT, SdkEvent))


def our_http(headers: dict[str, str] | None = None, body: bytes = b"", without: str = "") -> Any:
    carried = {f"ce-{name}": value for name, value in ATTRIBUTES.items() if name != without} | (headers or {})
    return result(lambda: from_request([(name.encode(), value.encode()) for name, value in carried.items()], body))


def sdk_json(**members: Any) -> Any:
    """Return what the SDK reads of an event that is one JSON object."""
    return result(lambda: FORMAT.read(SdkEvent, json.dumps({**ATTRIBUTES, **members})))


def our_json(**members: Any) -> Any:
    return result(lambda: from_object(json.dumps({**ATTRIBUTES, **members}).encode()))


def sdk_kafka(key: bytes | None = None, **headers: bytes) -> Any:
    """Return what the SDK reads of a record in binary mode."""
    carried = {f"ce_{name}": value.encode() for name, value in ATTRIBUTES.items()} | headers
    return result(lambda: kafka.from_binary(kafka.KafkaMessage(carried, key, b""), FORMAT, SdkEvent))


def our_kafka(key: bytes | None = None, value: bytes | None = b"", **headers: bytes) -> Any:
    carried = {f"ce_{name}": text.encode() for name, text in ATTRIBUTES.items()} | headers
    return result(lambda: from_record(KafkaMessage(key, value, tuple(carried.items()))))


# The event


def test_the_sdk_still_gives_a_time_to_an_event_that_has_none() -> None:
    assert "time" not in CloudEvent(ATTRIBUTES).get_attributes()
    still("time" in SdkEvent(dict(ATTRIBUTES)).get_attributes(), "the deletion of `time` in CloudEvent.__init__")


def test_the_sdk_still_makes_up_the_id_that_a_sender_left_out() -> None:
    assert isinstance(our_http(without="id"), InvalidCloudEvent)
    still(isinstance(sdk_http(without="id"), SdkEvent), "`id` from the required attributes in events/attributes.py")


def test_the_sdk_still_makes_up_the_version_that_a_sender_left_out() -> None:
    assert isinstance(our_http(without="specversion"), InvalidCloudEvent)
    still(isinstance(sdk_http(without="specversion"), SdkEvent), "`specversion: None` in from_attributes")


@pytest.mark.parametrize(
    ("name", "value", "ours"),
    [
        ("subject", "line\nbreak", "_DISALLOWED"),
        ("source", "with space", "the form of `source`"),
        ("dataschema", "/relative", "the form of `dataschema`"),
        ("datacontenttype", "json", "the form of `datacontenttype`"),
        ("newline\n", "1", "_EXTENSION_NAME"),
    ],
)
def test_the_sdk_still_takes_an_attribute_that_breaks_the_specification(name: str, value: str, ours: str) -> None:
    with pytest.raises(InvalidCloudEvent):
        CloudEvent({**ATTRIBUTES, name: value})
    taken = result(lambda: SdkEvent({**ATTRIBUTES, name: value}))
    still(isinstance(taken, SdkEvent), f"{ours} in events/attributes.py")


# Its time


def test_the_sdk_still_reads_no_leap_second() -> None:
    assert isinstance(our_http({"ce-time": "1990-12-31T23:59:60Z"}).time, datetime)
    leap = sdk_http({"ce-time": "1990-12-31T23:59:60Z"})
    still(isinstance(leap, ValueError), "events.attributes.Timestamp, and give the SDK the time to read")


def test_the_sdk_still_keeps_no_more_than_six_digits_of_a_second() -> None:
    text = "2026-11-21T10:45:57.099123456Z"
    assert to_binary(our_http({"ce-time": text}))[0]["ce-time"] == text
    forwarded = http.to_binary(sdk_http({"ce-time": text}), FORMAT).headers["ce-time"]
    still(forwarded != text, "events.attributes.Timestamp, and give the SDK the time to read")


def test_the_sdk_still_adds_digits_to_a_second() -> None:
    text = "2026-11-21T10:45:57.120Z"
    assert to_binary(our_http({"ce-time": text}))[0]["ce-time"] == Timestamp.read(text).isoformat() == text
    forwarded = http.to_binary(sdk_http({"ce-time": text}), FORMAT).headers["ce-time"]
    still(forwarded != text, "events.attributes.Timestamp, and give the SDK the time to read")


# HTTP


def test_the_sdk_still_takes_the_mode_of_a_request_from_its_ce_headers() -> None:
    headers = {**{f"ce-{name}": value for name, value in ATTRIBUTES.items()}, "content-type": STRUCTURED}
    body = json.dumps({**ATTRIBUTES, "id": "inside"}).encode()
    assert from_request([(name.encode(), value.encode()) for name, value in headers.items()], body).id == "inside"
    read = result(lambda: http.from_http(http.HTTPMessage(headers, body), FORMAT, SdkEvent).get_id())
    still(read != "inside", "the choice of the mode in events.http.from_request")


def test_the_sdk_still_keeps_the_quotes_of_a_quoted_header() -> None:
    assert our_http({"ce-subject": r'"a \"b\""'}).subject == 'a "b"'
    read = sdk_http({"ce-subject": r'"a \"b\""'})
    still(read.get_subject() != 'a "b"', "_QUOTED in events/http.py")


def test_the_sdk_still_replaces_what_is_not_utf8_in_a_header() -> None:
    assert isinstance(our_http({"ce-subject": "%C0%A0"}), InvalidCloudEvent)
    still(isinstance(sdk_http({"ce-subject": "%C0%A0"}), SdkEvent), "the decoding in events.http._text")


def test_the_sdk_still_takes_the_type_of_the_data_from_a_header_that_must_not_be_there() -> None:
    assert isinstance(our_http({"ce-datacontenttype": "a/b"}), InvalidCloudEvent)
    still(isinstance(sdk_http({"ce-datacontenttype": "a/b"}), SdkEvent), "the fault in event_headers")


@pytest.mark.parametrize("data", [b'"text"', b'["a"]', b"1e400"])
def test_the_sdk_still_writes_json_that_it_has_read_as_something_else(data: bytes) -> None:
    assert to_binary(our_http({"content-type": JSON}, data))[1] == data
    written = http.to_binary(sdk_http({"content-type": JSON}, data), FORMAT).body
    still(result(lambda: json.loads(written)) != json.loads(data) or b"Infinity" in written, "`data` of event_maker")


def test_the_sdk_still_takes_data_that_is_not_json_for_json() -> None:
    assert isinstance(our_http({"content-type": JSON}, b"{"), InvalidCloudEvent)
    still(isinstance(sdk_http({"content-type": JSON}, b"{"), SdkEvent), "events.http._json_faults")


# The JSON format


def test_the_sdk_still_refuses_an_attribute_that_is_null() -> None:
    assert our_json(subject=None).subject == ""
    still(isinstance(sdk_json(subject=None), Exception), "what examine() says of None")


def test_the_sdk_still_falls_over_a_time_that_is_null() -> None:
    assert our_json(time=None).time is None
    still(isinstance(sdk_json(time=None), TypeError), "`time` from what from_object keeps apart")


def test_the_sdk_still_falls_over_events_of_an_older_version() -> None:
    older: dict[str, Any] = {"specversion": "0.3", "datacontentencoding": 7}
    assert isinstance(our_json(**older), InvalidCloudEvent)
    still(isinstance(sdk_json(**older), AttributeError), "`specversion` from what from_object keeps apart")


def test_the_sdk_still_takes_null_data_for_none() -> None:
    assert our_json(data=None).data == b"null"
    written = http.to_binary(sdk_json(data=None, datacontenttype=JSON), FORMAT).body
    still(written != b"null", "`has_data` in from_object")


def test_the_sdk_still_does_not_say_that_data_without_a_type_is_json() -> None:
    assert our_json(data={}).datacontenttype == JSON
    still("content-type" not in http.to_binary(sdk_json(data={}), FORMAT).headers, "the default type in from_object")


def test_the_sdk_still_writes_a_json_string_without_its_quotes() -> None:
    assert our_json(data="text", datacontenttype=JSON).data == b'"text"'
    written = http.to_binary(sdk_json(data="text", datacontenttype=JSON), FORMAT).body
    still(written != b'"text"', "events.json_format._data")


def test_the_sdk_still_writes_a_boolean_as_python_does() -> None:
    assert to_binary(our_json(done=True))[0]["ce-done"] == "true"
    written = http.to_binary(sdk_json(done=True), FORMAT).headers["ce-done"]
    still(written != "true", "the booleans in events.attributes._text")


def test_the_sdk_still_takes_anything_for_base64() -> None:
    assert isinstance(our_json(data_base64="?!"), InvalidCloudEvent)
    still(isinstance(sdk_json(data_base64="?!"), SdkEvent), "events.json_format._is_base64")


def test_the_sdk_still_takes_for_json_what_is_none() -> None:
    body = json.dumps({**ATTRIBUTES, "data": float("nan")})
    assert isinstance(result(lambda: from_object(body.encode())), InvalidCloudEvent)
    still(isinstance(result(lambda: FORMAT.read(SdkEvent, body)), SdkEvent), "from_json in events.json_format._members")


# Kafka


def test_the_sdk_still_takes_the_mode_of_a_record_from_its_ce_headers() -> None:
    headers = {
        **{f"ce_{name}": value.encode() for name, value in ATTRIBUTES.items()},
        "content-type": STRUCTURED.encode(),
    }
    value = json.dumps({**ATTRIBUTES, "id": "inside"}).encode()
    ours = from_record(KafkaMessage(None, value, tuple(headers.items())))
    assert ours is not None
    assert ours.id == "inside"
    read = result(lambda: kafka.from_kafka(kafka.KafkaMessage(headers, None, value), FORMAT, SdkEvent).get_id())
    still(read != "inside", "the choice of the mode in events.kafka.from_record")


def test_the_sdk_still_takes_the_key_of_a_record_for_an_attribute() -> None:
    assert our_kafka(b"key").extensions == {}
    still("partitionkey" in sdk_kafka(b"key").get_attributes(), "`key=None` in events.kafka.from_record")


def test_the_sdk_still_reads_no_record_whose_key_is_not_utf8() -> None:
    assert isinstance(our_kafka(b"\xff"), CloudEvent)
    still(isinstance(sdk_kafka(b"\xff"), UnicodeDecodeError), "`key=None` in events.kafka.from_record")


def test_the_sdk_still_reads_no_record_with_a_foreign_header_that_is_not_utf8() -> None:
    assert isinstance(our_kafka(other=b"\xff"), CloudEvent)
    still(isinstance(sdk_kafka(other=b"\xff"), UnicodeDecodeError), "the choice of headers in event_headers")


def test_the_sdk_still_writes_a_value_where_there_is_no_data() -> None:
    assert to_record(CloudEvent(ATTRIBUTES)).value is None
    still(kafka.to_binary(SdkEvent(dict(ATTRIBUTES)), FORMAT).value is not None, "`value=event.data` in to_record")


def test_the_sdk_still_takes_an_empty_value_for_no_data() -> None:
    assert our_kafka(value=b"").data == b""
    assert our_kafka(value=None).data is None
    still(sdk_kafka().get_data() is None, "`data` of event_maker")
