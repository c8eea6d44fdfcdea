"""CloudEvents Kafka binding: an event as key, headers and value of a record.

The content type decides the mode, whatever other headers there are; the key is made from `partitionkey` and adds
nothing to the event that is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent, binary_attributes, from_attributes
from layerscope.events.json_format import is_structured, read_structured

PREFIX: Final = "ce_"
CONTENT_TYPE: Final = "content-type"


@dataclass(frozen=True, slots=True)
class KafkaMessage:
    """What is published; without a value there is no data."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What is read: a message and where it lies."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


def to_record(event: CloudEvent) -> KafkaMessage:
    """Return the message that carries the event in binary mode."""
    attributes = event.attributes()
    content_type = attributes.pop("datacontenttype", None)
    headers = [(f"{PREFIX}{name}", value.encode()) for name, value in attributes.items()]
    if content_type is not None:
        headers.append((CONTENT_TYPE, content_type.encode()))
    key = event.extensions.get("partitionkey")
    return KafkaMessage(key=None if key is None else key.encode(), value=event.data, headers=tuple(headers))


def from_record(record: KafkaMessage | Record) -> CloudEvent | None:
    """Read the event of a record, in binary or structured mode; None when the record does not mean to be one.

    Raises:
        InvalidCloudEvent: it means to be one, with all that is wrong with it.
    """
    faults: list[str] = []
    named = [(name.lower(), value) for name, value in record.headers]
    content_type = next((_text(name, value, faults) for name, value in named if name == CONTENT_TYPE), "")
    if is_structured(content_type):
        if record.value is None:
            raise InvalidCloudEvent(["the record has no value, where a whole event should be"])
        return read_structured(content_type, record.value)
    if not any(name.startswith(PREFIX) for name, _ in named):
        return None
    texts = [(name, _text(name, value, faults)) for name, value in named if name.startswith(PREFIX)]
    attributes = binary_attributes([*texts, (CONTENT_TYPE, content_type)], PREFIX, faults)
    return from_attributes(attributes, record.value, faults)


def _text(name: str, value: bytes, faults: list[str]) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        faults.append(f"{name[:80]!r} is not UTF-8")
        return ""
