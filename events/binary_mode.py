"""Binary mode, as HTTP and Kafka share it: the headers that the SDK reads, and what it is not given to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from cloudevents.core.base import EventFactory

from layerscope.events.attributes import shown
from layerscope.events.cloudevent import CloudEvent, from_attributes

CONTENT_TYPE: Final = "content-type"

ValueT = TypeVar("ValueT", str, bytes)


def event_headers(headers: Iterable[tuple[str, ValueT]], prefix: str, faults: list[str]) -> dict[str, ValueT]:
    """Return those headers of a message, names in lower case, that hold attributes; what is wrong goes to `faults`."""
    found: dict[str, ValueT] = {}
    for header, value in headers:
        name = header.removeprefix(prefix)
        if name == header or (name == "datacontenttype" and not value):
            continue
        if name == "datacontenttype":
            faults.append(f"{header} is not allowed: the type of the data is the content-type")
        elif header in found:
            faults.append(f"{shown(name)} is given twice")
        else:
            found[header] = value
    return found


def event_maker(time: str | None, data: bytes | None, faults: list[str]) -> EventFactory:
    """Return what makes an event of the attributes that the SDK has read.

    Time and data are not for it to read: it refuses a leap second and changes the digits of other times, and JSON that
    it reads it writes back as something else, a string without its quotes, say.
    """

    def made(attributes: dict[str, Any], _: object) -> CloudEvent:
        return from_attributes({**attributes, "time": time}, data, faults)

    return made
