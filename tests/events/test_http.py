"""The HTTP binding and the JSON format: what travels, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import given
from hypothesis import strategies as st

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.http import from_request, has_event, to_binary
from layerscope.events.json_format import from_object
from tests.events.strategies import ATTRIBUTE_TEXT, EXTENSION_NAMES, JSON_VALUES, events

STRUCTURED = "application/cloudevents+json"


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def binary(body: bytes = b"", **headers: str) -> CloudEvent:
    usual = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
    return from_request(raw({**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}), body)


def structured(content_type: str = STRUCTURED, **members: Any) -> CloudEvent:
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **members})
    return from_request([(b"content-type", content_type.encode())], body.encode())


def faults_of(headers: dict[str, str], body: bytes = b"") -> tuple[str, ...]:
    with pytest.raises(InvalidCloudEvent) as raised:
        from_request(raw(headers), body)
    return raised.value.faults


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


# Binary mode


@pytest.mark.slow
@given(events(data=JSON_VALUES.map(json_bytes)))
def test_an_event_survives_the_trip(event: CloudEvent) -> None:
    headers, body = to_binary(event)
    assert from_request(raw(headers), body) == event


@given(ATTRIBUTE_TEXT)
def test_what_travels_in_a_header_is_printable_ascii_without_spaces_and_quotes(text: str) -> None:
    headers, _ = to_binary(CloudEvent({"id": text, "source": "/s", "type": "t"}))
    assert all(0x21 <= ord(character) <= 0x7E and character != '"' for character in headers["ce-id"])


def test_a_header_is_encoded_as_in_the_example_of_the_specification() -> None:
    headers, _ = to_binary(CloudEvent({"id": "Euro \u20ac \U0001f600", "source": "/s", "type": "t"}))
    assert headers["ce-id"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"


def test_data_travel_as_they_are_beside_their_type() -> None:
    event = CloudEvent({"id": "1", "source": "/s", "type": "t", "datacontenttype": "text/plain"}, b"\x00\xff")
    headers, body = to_binary(event)
    assert (headers["content-type"], body) == ("text/plain", b"\x00\xff")
    assert "ce-datacontenttype" not in headers


def test_an_event_without_data_has_no_body_and_an_empty_body_is_no_data() -> None:
    headers, body = to_binary(
        CloudEvent({"id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json"})
    )
    assert body == b""
    assert from_request(raw(headers), body).data is None


@pytest.mark.parametrize(
    ("travelled", "meant"),
    [
        ("plain", "plain"),
        ("%41%62", "Ab"),
        ("%e2%82%ac", "\u20ac"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%2541", "%41"),
        ('"quoted text"', "quoted text"),
        (r'"a \"b\" \\c"', 'a "b" \\c'),
        ('"%41"', "A"),
        ('half "quoted"', 'half "quoted"'),
        ("  around\t", "around"),
        ("a+b", "a+b"),
    ],
)
def test_a_header_is_unquoted_and_decoded_once(travelled: str, meant: str) -> None:
    assert binary(ce_subject=travelled).subject == meant


@pytest.mark.parametrize("travelled", ["%C0%A0", "%FF", "%ED%A0%80", "\xe9"])
def test_a_header_that_is_not_utf8_is_a_fault(travelled: str) -> None:
    with pytest.raises(InvalidCloudEvent, match="'ce-subject' is not UTF-8"):
        binary(ce_subject=travelled)


def test_raw_utf8_in_a_header_is_tolerated() -> None:
    assert binary(ce_subject="\u20ac".encode().decode("latin-1")).subject == "\u20ac"


def test_header_names_have_no_case_and_others_are_passed_over() -> None:
    headers = {"CE-SpecVersion": "1.0", "Ce-Id": "1", "CE-SOURCE": "/s", "ce-type": "t", "Content-Type": "text/plain"}
    event = from_request(raw({**headers, "Host": "h", "Prefer": "reply", "x-ce-id": "2"}), b"data")
    assert event == CloudEvent({"id": "1", "source": "/s", "type": "t", "datacontenttype": "text/plain"}, b"data")


@pytest.mark.parametrize("body", [b"{", b"NaN", b"\xff", b"{} {}", b"[" * 100_000])
@pytest.mark.parametrize("content_type", ["application/json", "application/problem+json; charset=utf-8"])
def test_json_data_that_are_not_json_are_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidCloudEvent, match="the data is not JSON"):
        binary(body, content_type=content_type)
    assert binary(body, content_type="text/plain").data == body


def test_json_data_keep_their_bytes() -> None:
    assert binary(b' {"b": 1.10, "a": 1e5}', content_type="application/json").data == b' {"b": 1.10, "a": 1e5}'


def test_a_byte_order_mark_before_json_is_passed_over_and_before_anything_else_kept() -> None:
    mark = b"\xef\xbb\xbf"
    assert binary(mark + b"[1]", **{"content-type": "application/json"}).data == b"[1]"
    assert binary(mark + b"[1]", **{"content-type": "text/plain"}).data == mark + b"[1]"
    whole = json_bytes({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": [1]})
    assert from_request(raw({"content-type": STRUCTURED}), mark + whole).data == b"[1]"


def test_every_fault_of_a_request_is_told_at_once() -> None:
    found = faults_of(
        {
            "ce-specversion": "0.3",
            "ce-id": "%FF",
            "ce-time": "now",
            "ce-Bad_Name": "1",
            "ce-datacontenttype": "text/plain",
            "content-type": "application/json",
        },
        b"{",
    )
    for fault in (
        "specversion",
        "'ce-id'",
        "time is",
        "'bad_name'",
        "ce-datacontenttype",
        "not JSON",
        "source",
        "type",
    ):
        assert any(fault in one for one in found), f"{fault} is not in {found}"


def test_an_attribute_that_is_given_twice_is_a_fault() -> None:
    headers = [*raw({"ce-specversion": "1.0", "ce-source": "/s", "ce-type": "t", "ce-id": "1"}), (b"Ce-Id", b"2")]
    with pytest.raises(InvalidCloudEvent, match="'id' is given twice"):
        from_request(headers, b"")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}, {"ceid": "1"}])
def test_a_request_without_an_event_is_refused_as_such(headers: dict[str, str]) -> None:
    assert len(faults_of(headers, b"{}")) == 1
    assert not has_event(raw(headers))


@pytest.mark.parametrize(
    "headers", [{"CE-id": ""}, {"content-type": "Application/CloudEvents+JSON; charset=utf-8"}, {"ce-unknown": "1"}]
)
def test_headers_alone_tell_that_an_event_is_meant(headers: dict[str, str]) -> None:
    assert has_event(raw(headers))


# Structured mode


@pytest.mark.slow
@given(events())
def test_an_event_survives_the_trip_as_one_object(event: CloudEvent) -> None:
    assert from_object(JSONFormat().write(event)) == event


@pytest.mark.parametrize("content_type", [STRUCTURED, f"{STRUCTURED}; charset=UTF-8", "Application/CloudEvents+Json"])
def test_the_content_type_alone_makes_it_structured(content_type: str) -> None:
    headers = [(b"ce-id", b"other"), (b"ce-specversion", b"9"), (b"content-type", content_type.encode())]
    body = b'{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}'
    assert from_request(headers, body) == CloudEvent({"id": "1", "source": "/s", "type": "t"})


@pytest.mark.parametrize(
    ("members", "data", "media_type"),
    [
        ({}, None, None),
        ({"data": {"a": [1, "\u20ac"]}}, '{"a":[1,"\u20ac"]}'.encode(), "application/json"),
        ({"data": None}, b"null", "application/json"),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text", "text/plain"),
        ({"data": "{}", "datacontenttype": "application/json"}, b'"{}"', "application/json"),
        ({"data_base64": "AP8="}, b"\x00\xff", None),
        ({"data_base64": "e30=", "datacontenttype": "application/json"}, b"{}", "application/json"),
        ({"data_base64": "", "datacontenttype": "text/plain"}, b"", "text/plain"),
        ({"data_base64": None}, None, None),
    ],
)
def test_data_are_read_by_member_and_type(members: dict[str, Any], data: bytes | None, media_type: str | None) -> None:
    event = structured(**members)
    assert (event.data, event.datacontenttype) == (data, media_type)


def test_attributes_are_text_numbers_and_booleans_become_it_and_null_is_absent() -> None:
    event = structured(subject=None, time=None, whole=-7, yes=True, no=False, none=None)
    assert event == CloudEvent({"id": "1", "source": "/s", "type": "t", "whole": "-7", "yes": "true", "no": "false"})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"id": None}, "id is missing"),
        ({"specversion": "0.3"}, "specversion is '0.3'"),
        ({"specversion": 1.0}, "'specversion' is not text"),
        ({"ext": {"a": 1}}, "'ext' is not text"),
        ({"ext": 1.5}, "'ext' is not text"),
        ({"Ext": "1"}, "'Ext' is no name"),
        ({"data": 1, "data_base64": "AA=="}, "both there"),
        ({"data_base64": "?"}, "not base64"),
        ({"data_base64": "\u20ac"}, "not base64"),
        ({"data_base64": 7}, "not base64"),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, "not text, though"),
    ],
)
def test_an_object_that_is_no_event_is_refused(members: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidCloudEvent, match=reason):
        structured(**members)


def test_a_number_beyond_the_doubles_is_refused() -> None:
    with pytest.raises(InvalidCloudEvent, match="beyond the doubles"):
        from_object(b'{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": 1e400}')


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"{", b"\xff\xfe{", b"[" * 100_000, b'{"a": "\\ud800"}'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidCloudEvent, match="the body is not"):
        from_object(body)


@pytest.mark.parametrize("content_type", ["application/cloudevents-batch+json", "application/cloudevents-batch"])
def test_a_batch_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidCloudEvent, match="batch"):
        structured(content_type)


@pytest.mark.parametrize("content_type", ["application/cloudevents+avro", "application/cloudevents+xml; charset=utf-8"])
def test_another_event_format_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidCloudEvent, match="event format"):
        structured(content_type)


# Anything


HEADER_NAMES = st.sampled_from(
    [b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"ce-time", b"ce-", b"CE-X", b"content-type", b"host"]
)
HEADER_VALUES = st.sampled_from(
    [b"1.0", b"/s", b"t", STRUCTURED.encode(), b"application/json", b"application/cloudevents-batch+json"]
) | st.binary(max_size=12)


@given(
    st.lists(st.tuples(HEADER_NAMES | st.binary(max_size=6), HEADER_VALUES), max_size=8),
    st.binary(max_size=30) | JSON_VALUES.map(json_bytes),
)
def test_whatever_comes_is_an_event_or_refused(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    try:
        event = from_request(headers, body)
    except InvalidCloudEvent as error:
        assert error.faults
    else:
        assert from_request(raw(to_binary(event)[0]), event.data or b"").id == event.id


# Those who have the SDK and nothing else


@pytest.mark.slow
@given(events(data=JSON_VALUES.map(json_bytes)))
def test_the_sdk_alone_reads_what_we_write(event: CloudEvent) -> None:
    headers, body = to_binary(event)
    headers.pop("ce-time", None)  # it takes no leap second and no digit behind the sixth
    read = sdk.from_binary(sdk.HTTPMessage(headers=headers, body=body), JSONFormat(), SdkEvent)
    theirs = {name: str(value) for name, value in read.get_attributes().items() if name != "time"}
    assert theirs == {name: value for name, value in event.attributes().items() if name != "time"}


@pytest.mark.slow
@given(
    st.dictionaries(EXTENSION_NAMES, ATTRIBUTE_TEXT, max_size=3),
    st.dictionaries(
        st.text("abc", max_size=3), JSON_VALUES, min_size=1, max_size=3
    ),  # it leaves a bare string unquoted
    st.booleans(),
)
def test_we_read_what_the_sdk_alone_writes(extensions: dict[str, str], data: Any, as_object: bool) -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json", **extensions}
    theirs = SdkEvent(attributes=attributes, data=data)
    message = (sdk.to_structured if as_object else sdk.to_binary)(theirs, JSONFormat())
    event = from_request([(name.encode(), value.encode()) for name, value in message.headers.items()], message.body)
    assert json.loads(event.data or b"") == data
    assert event.extensions == extensions
    assert (event.id, event.source, event.type, event.datacontenttype) == ("1", "/s", "t", "application/json")
