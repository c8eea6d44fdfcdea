"""From a record to the event that a subscription offers: decoded, or wrapped as KafkaSource wraps what is none."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from layerscope.dataplane.resources import Subscription
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.kafka import Record, from_record

READ_AT_ONCE: Final = 32  # records; a broker takes some of up to a megabyte
WRAPPED_TYPE: Final = "dev.knative.kafka.event"


def event_of(record: Record, subscription: Subscription) -> CloudEvent | None:
    """Return the record as an event that knows its partition and offset; None where a Trigger discards it."""
    event = _read(record)
    if event is None and subscription.kind == "KafkaSource":
        return _positioned(_wrap(record, subscription), record)
    return event


@lru_cache(READ_AT_ONCE)
def _read(record: Record) -> CloudEvent | None:
    """Read a record once, however many subscriptions have it: all of them do within a moment."""
    try:
        event = from_record(record)
    except InvalidCloudEvent:
        return None
    return None if event is None else _positioned(event, record)


def _positioned(event: CloudEvent, record: Record) -> CloudEvent:
    return event.with_attributes(knativekafkapartition=str(record.partition), knativekafkaoffset=str(record.offset))


def traceparent_of(record: Record) -> str | None:
    """Return the trace that the record's own header names; the event's extension is left to the event."""
    found = [value for name, value in record.headers if name == "traceparent"]
    return found[-1].decode("ascii", "replace") if found else None


def _wrap(record: Record, subscription: Subscription) -> CloudEvent:
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    extensions = {f"kafkaheader{re.sub('[^a-z0-9]', '', name.lower())}": clean(text) for name, text in headers.items()}
    if record.key is not None:
        extensions["key"] = extensions["partitionkey"] = clean(record.key.decode("utf-8", "replace"))
    content_types = [clean(text).lower() for name, text in headers.items() if name.lower() == "content-type"]
    attributes = {
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "source": f"/apis/v1/namespaces/{subscription.namespace}/kafkasources/{subscription.name}#{record.topic}",
        "type": WRAPPED_TYPE,
        "subject": f"partition:{record.partition}#{record.offset}",
        "time": _time(record.timestamp_ms),
    }
    event = CloudEvent({**attributes, **extensions}, record.value)
    if content_types:
        with suppress(InvalidCloudEvent):  # what is no media type is left out, the record is not
            return event.with_attributes(datacontenttype=content_types[-1])
    return event


def _time(milliseconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):  # a producer may write any time, also one beyond the calendar
        return None


def clean(text: str) -> str:
    """Return the text as an attribute may hold it, with a replacement character for every one that it may not."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
