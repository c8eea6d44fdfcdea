"""What an event must be, and how a fact becomes one."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import given

from layerscope.events.attributes import Timestamp, is_json
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent, InvalidEventData, compose, read
from layerscope.events.http import to_binary
from layerscope.events.kafka import to_record
from layerscope.schemas.digests import digest
from layerscope.schemas.events import (
    EventData,
    IndexUpdated,
    ModelRemoved,
    ModelUploaded,
    ProductRequested,
    ProductWritten,
    ReplayStarted,
)
from layerscope.schemas.identity import subject_of_key
from tests.events.strategies import events

UPLOADED = ModelUploaded(bucket="models", key="digits/lenet/1.pth", etag="63f4", size=7, sequencer="18EA0999ACF56869")
REQUESTED = ProductRequested(dataset="digits", model="lenet", version="1", product="evaluation")
REFUSED = f"_refused/{hashlib.sha256(b'no rule').hexdigest()[:32]}"


def faults(**attributes: object) -> tuple[str, ...]:
    with pytest.raises(InvalidCloudEvent) as raised:
        CloudEvent({"id": "1", "source": "/s", "type": "t", **attributes})
    assert str(raised.value) == "not a CloudEvent: " + "; ".join(raised.value.faults)
    return raised.value.faults


# The specification


def test_all_faults_are_told_at_once() -> None:
    found = faults(id="", source="a b", type="t\n", time="today", dataschema="x", Big="1", ok="\x00")
    assert [fault.split()[0] for fault in found] == ["id", "source", "type", "time", "dataschema", "'Big'", "'ok'"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("source", ""),
        ("type", ""),
        ("source", "with space"),
        ("source", "100%"),
        ("source", "/caf\u00e9"),
        ("subject", "line\nbreak"),
        ("subject", "\ud800"),
        ("subject", "\ufffe"),
        ("subject", "\U0001ffff"),
        ("subject", "\x9f"),
        ("time", ""),
        ("time", "2026-11-21"),
        ("time", "2026-11-21T10:45:57"),
        ("time", "2026-02-30T10:45:57Z"),
        ("time", "2026-11-21T25:45:57Z"),
        ("time", "2026-11-21T10:45:57+99:00"),
        ("time", "\u0662026-11-21T10:45:57Z"),
        ("datacontenttype", "json"),
        ("datacontenttype", ""),
        ("dataschema", "/relative"),
        ("dataschema", ""),
    ],
)
def test_an_attribute_that_breaks_the_specification_is_the_one_fault(name: str, value: str) -> None:
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{name} ")


@pytest.mark.parametrize("name", ["", "Upper", "with-hyphen", "with_underscore", "\u00e9", "data"])
def test_an_extension_has_a_name_of_its_own_in_lower_case_letters_and_digits(name: str) -> None:
    (fault,) = faults(**{name: "value"})
    assert "name of an extension" in fault


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-21T10:45:57Z",
        "2026-11-21t10:45:57.123456789z",
        "1990-12-31T23:59:60.5-00:00",
        "0001-01-01T00:00:00-23:59",
    ],
)
def test_every_rfc_3339_time_is_one_and_keeps_its_digits(time: str) -> None:
    assert CloudEvent({"id": "1", "source": "/s", "type": "t", "time": time}).attributes()["time"] == time


def test_utc_is_written_as_z_as_the_sdk_writes_it() -> None:
    assert Timestamp.read("2026-11-21T10:45:57.0+00:00").isoformat() == "2026-11-21T10:45:57.0Z"


def test_a_moment_computed_from_another_is_written_as_what_it_is() -> None:
    later = Timestamp.read("1990-12-31T23:59:60Z") + timedelta(seconds=2)
    assert later.isoformat() == "1991-01-01T00:00:01+00:00"


def test_attributes_may_have_any_type_of_the_specification_and_travel_as_text() -> None:
    time = datetime(2026, 11, 21, 10, 45, 57, tzinfo=UTC)
    event = CloudEvent({"id": "1", "source": "/s", "type": "t", "time": time, "whole": -7, "done": True, "not": None})
    assert event.attributes() == {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "time": "2026-11-21T10:45:57Z",
        "whole": "-7",
        "done": "true",
    }
    assert faults(other=1.5) == ("'other' is not text, a whole number or a boolean",)


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(faults(source=" " * 100_000)[0]) < 200


def test_an_event_does_not_change_with_the_mapping_it_was_made_from() -> None:
    attributes = {"id": "1", "source": "/s", "type": "t", "lane": "replay"}
    event = CloudEvent(attributes, b"data")
    attributes["lane"] = event.get_attributes()["lane"] = event.extensions["lane"] = "other"
    assert event.extensions == {"lane": "replay"}
    assert "time" not in attributes


def test_an_event_with_other_attributes_or_data_is_another_event() -> None:
    event = CloudEvent({"id": "1", "source": "/s", "type": "t", "lane": "replay"}, b"data")
    other = event.with_attributes(lane=None, self="any name", datacontenttype="text/plain").with_data(None)
    assert other == CloudEvent(
        {"id": "1", "source": "/s", "type": "t", "self": "any name", "datacontenttype": "text/plain"}
    )
    assert event.data == b"data"
    assert len({event, event.with_attributes(), event.with_attributes(lane="live"), other}) == 3
    with pytest.raises(InvalidCloudEvent, match="id is missing"):
        event.with_attributes(id=None)


@pytest.mark.slow
@given(events())
def test_an_event_is_one_of_the_sdk_and_its_bindings_take_it(event: CloudEvent) -> None:
    assert isinstance(event, SdkEvent)
    message = http.to_binary(event, JSONFormat())
    assert (message.headers, message.body) == to_binary(event)
    assert JSONFormat().read(SdkEvent, JSONFormat().write(event.with_attributes(time=None))).get_data() == event.data


@pytest.mark.slow
@given(events())
def test_every_event_that_can_be_made_can_be_made_again_from_its_attributes(event: CloudEvent) -> None:
    attributes = event.attributes()
    assert attributes.pop("specversion") == "1.0"
    assert CloudEvent(attributes, event.data) == event


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ("application/problem+json", True),
        ("text/json", True),
        ("application/jsonlines", False),
        ("application/xml; format=json", False),
        ("application/json+xml", False),
        (None, False),
    ],
)
def test_json_is_known_by_its_subtype(media_type: str | None, expected: bool) -> None:
    assert is_json(media_type) is expected


# Ours


def test_a_fact_becomes_a_whole_event() -> None:
    event = compose(UPLOADED, source="/functions/announce", subject="digits/lenet/1")
    assert event.type == "io.layerscope.model.uploaded.v1"
    assert event.datacontenttype == "application/json"
    assert event.dataschema == "urn:layerscope:schemas:events/model.uploaded.v1.json"
    assert json.loads(event.data or b"") == UPLOADED.model_dump(mode="json")
    assert event.extensions == {
        "partitionkey": "digits/lenet/1",
        "correlationid": event.id,
        "sequence": "18EA0999ACF56869",
    }
    assert event.time is not None
    assert abs(event.time - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_id_is_a_digest_of_what_is_said_by_whom_of_what_and_of_nothing_else() -> None:
    event = compose(UPLOADED, source="/functions/announce", subject="digits/lenet/1")
    said = {"type": event.type, "source": event.source, "subject": event.subject, "data": UPLOADED.model_dump()}
    assert event.id == digest(said)


def test_the_same_fact_has_the_same_id_on_every_lane_for_every_cause_at_every_time() -> None:
    first = compose(REQUESTED, source="/functions/replay", subject="digits/lenet/1")
    second = compose(
        REQUESTED, source="/functions/replay", subject="digits/lenet/1", cause=first, traceparent="00-1", lane="replay"
    )
    assert first.id == second.id
    assert first.data == second.data


@pytest.mark.parametrize(
    ("data", "source", "subject"),
    [
        (REQUESTED.model_copy(update={"product": "summary"}), "/functions/replay", "digits/lenet/1"),
        (REQUESTED, "/functions/other", "digits/lenet/1"),
        (REQUESTED, "/functions/replay", "digits/lenet/2"),
    ],
)
def test_another_fact_has_another_id(data: EventData, source: str, subject: str) -> None:
    usual = compose(REQUESTED, source="/functions/replay", subject="digits/lenet/1")
    assert compose(data, source=source, subject=subject).id != usual.id


def test_an_answer_carries_on_what_its_cause_belongs_to() -> None:
    upload = compose(UPLOADED, source="/functions/announce", subject="digits/lenet/1")
    asked = compose(
        REQUESTED, source="/r", subject="digits/lenet/1", cause=upload, lane="replay", replayid="7", traceparent="00-1"
    )
    written = ProductWritten(
        dataset="digits", model="lenet", version="1", content="0" * 64, product="evaluation", address="r1-0"
    )
    answer = compose(written, source="/functions/evaluation", subject="digits/lenet/1", cause=asked)
    assert answer.extensions == {
        "partitionkey": "digits/lenet/1",
        "correlationid": upload.id,
        "causationid": asked.id,
        "product": "evaluation",
        "lane": "replay",
        "replayid": "7",
        "traceparent": "00-1",
    }


def test_a_cause_from_elsewhere_begins_the_correlation() -> None:
    foreign = CloudEvent({"id": "their id", "source": "/them", "type": "theirs"})
    assert compose(REQUESTED, source="/s", subject="a/b/1", cause=foreign).extensions["correlationid"] == "their id"


def test_a_trace_of_its_own_takes_the_place_of_the_causes() -> None:
    cause = CloudEvent({"id": "1", "source": "/s", "type": "t", "traceparent": "00-old"})
    event = compose(REQUESTED, source="/s", subject="a/b/1", cause=cause, traceparent="00-new")
    assert event.extensions["traceparent"] == "00-new"


@pytest.mark.parametrize(
    ("key", "subject"),
    [
        ("digits/lenet/1.pth", "digits/lenet/1"),
        ("digits/model_lenet_v1.pth", "digits/lenet/1"),
        ("digits/lenet/1.history.json", "digits/lenet/1"),
        ("no rule", REFUSED),
    ],
)
def test_versions_of_one_model_and_refused_keys_have_partition_keys_of_their_own(key: str, subject: str) -> None:
    event = compose(ModelRemoved(bucket="models", key=key), source="/s", subject=subject_of_key(key))
    assert (event.subject, event.extensions["partitionkey"]) == (subject, subject)


@pytest.mark.parametrize("key", ["", "x", "a/b/c/d.pth", "digits/\u00fc/1.pth", "digits/lenet/1.pth\n", "\udcff"])
def test_the_subject_of_a_refused_key_is_an_attribute_whatever_the_key(key: str) -> None:
    subject = subject_of_key(key)
    assert CloudEvent({"id": "1", "source": "/s", "type": "t", "subject": subject}).subject == subject
    assert len(subject) == len("_refused/") + 32
    assert subject != subject_of_key(key + "x")


def test_facts_come_back_as_they_were_said() -> None:
    facts = [
        UPLOADED,
        REQUESTED,
        ReplayStarted(replay="7", selector="missing", asks={"evaluation": 3}),
        IndexUpdated(dataset="digits", model="lenet", version="1", rows=0, fingerprint="f"),
    ]
    for fact in facts:
        assert read(compose(fact, source="/s", subject="s"), type(fact)) == fact


def test_a_reader_passes_over_what_it_does_not_know() -> None:
    event = compose(REQUESTED, source="/s", subject="digits/lenet/1")
    newer = event.with_data(json.dumps({**json.loads(event.data or b""), "added": 1}).encode())
    assert read(newer, ProductRequested) == REQUESTED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "has no data"),
        (b"", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b'{"dataset": "digits", "model": "lenet", "version": "1"}', "product: Field required"),
        (b'{"dataset": "no good", "model": "lenet", "version": "1", "product": "x"}', "dataset: "),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
    ],
)
def test_data_that_is_not_of_its_type_is_refused_in_one_line(data: bytes | None, reason: str) -> None:
    event = compose(REQUESTED, source="/s", subject="digits/lenet/1").with_data(data)
    with pytest.raises(InvalidEventData, match=reason) as raised:
        read(event, ProductRequested)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_an_event_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidEventData, match=r"model\.uploaded.*not a .*product\.requested"):
        read(compose(UPLOADED, source="/s", subject="digits/lenet/1"), ProductRequested)


def test_our_events_travel_with_plain_headers() -> None:
    event = compose(UPLOADED, source="/functions/announce", subject="digits/lenet/1")
    headers, _ = to_binary(event)
    assert all(value.isascii() and "%" not in value for value in headers.values())
    assert to_record(event).key == b"digits/lenet/1"
