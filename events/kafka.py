"""CloudEvents Kafka binding: an event as key, headers and value of a record.

The SDK writes and reads the headers. Ours are the value, as the SDK has no record without one, the key, which it takes
for an attribute of the event, and the mode: the content type decides it, whatever other headers there are.
`tests/events/test_sdk.py` has the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloudevents.core.bindings import kafka as sdk

from layerscope.events.binary_mode import CONTENT_TYPE, event_headers, event_maker
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.json_format import FORMAT, is_structured, read_structured

PREFIX: Final = sdk.CE_PREFIX


@dataclass(frozen=True, slots=True)
class KafkaMessage:
    """What is published; without a value there is no data."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot be read, and the first offset that is lost with it; the record's own is the last."""

    first: int
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is read: a message and where it lies; with a `fault` only where it lies."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    fault: Fault | None = None


def to_record(event: CloudEvent) -> KafkaMessage:
    """Return the message that carries the event in binary mode."""
    message = sdk.to_binary(event, FORMAT)
    key = message.key.encode() if isinstance(message.key, str) else message.key
    return KafkaMessage(key=key, value=event.data, headers=tuple(message.headers.items()))


def from_record(record: KafkaMessage | Record) -> CloudEvent | None:
    """Read the event of a record, in binary or structured mode; None when the record does not mean to be one.

    Raises:
        InvalidCloudEvent: it means to be one, with all that is wrong with it.
    """
    faults: list[str] = []
    named = [(name.lower(), value) for name, value in record.headers]
    content_type = next((_text(name, value, faults) for name, value in named if name == CONTENT_TYPE), b"")
    if is_structured(content_type.decode()):
        if record.value is None:
            raise InvalidCloudEvent(["the record has no value, where a whole event should be"])
        return read_structured(content_type.decode(), record.value)
    texts = [(name, _text(name, value, faults)) for name, value in named if name.startswith(PREFIX)]
    if not texts:
        return None
    attributes = event_headers(texts, PREFIX, faults)
    time = attributes.pop(f"{PREFIX}time", None)
    made = event_maker(None if time is None else time.decode(), record.value, faults)
    if content_type:
        attributes[CONTENT_TYPE] = content_type
    event = sdk.from_binary(sdk.KafkaMessage(attributes, None, b""), FORMAT, made)
    assert isinstance(event, CloudEvent)
    return event


def type_of(record: Record) -> str | None:
    """Return the type of an event in binary mode by its headers alone, a small part of what it takes to read it.

    None where they do not say so plainly: the record may be an event all the same.
    """
    found: bytes | None = None
    for name, value in record.headers:
        match name.lower():
            case "ce_type" if found is None:
                found = value
            case "ce_type":
                return None
            case "content-type" if is_structured(value.decode("utf-8", "replace")):
                return None
    return None if found is None else found.decode("utf-8", "replace")


def _text(name: str, value: bytes, faults: list[str]) -> bytes:
    """Return the value of a header, which is UTF-8, or else a fault and nothing."""
    try:
        value.decode()
    except UnicodeDecodeError:
        faults.append(f"{name[:80]!r} is not UTF-8")
        return b""
    return value
