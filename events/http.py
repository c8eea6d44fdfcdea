"""CloudEvents HTTP binding: an event as headers and body, of a request or of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from pydantic_core import from_json

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent, binary_attributes, from_attributes, is_json
from layerscope.events.json_format import is_structured, read_structured

PREFIX: Final = "ce-"

# Every printable ASCII character but space, double quote and percent travels as it is.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def to_binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the event in binary mode."""
    headers = {f"{PREFIX}{name}": quote(value, safe=_PLAIN) for name, value in event.attributes().items()}
    headers.pop(f"{PREFIX}datacontenttype", None)
    if event.datacontenttype is not None:
        headers["content-type"] = event.datacontenttype
    return headers, event.data or b""


def has_event(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a message means to carry an event, valid or not: its headers decide, not its status or body."""
    return any(
        name.lower().startswith(PREFIX.encode())
        or (name.lower() == b"content-type" and is_structured(value.decode("latin-1")))
        for name, value in headers
    )


def from_request(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> CloudEvent:
    """Read the event of a request or an answer, in binary or structured mode.

    Raises:
        InvalidCloudEvent: with all that is wrong: among it JSON data that is not JSON, and batches.
    """
    faults: list[str] = []
    named = [(name.decode("latin-1").lower(), value) for name, value in headers]
    content_type = next((value.decode("latin-1") for name, value in named if name == "content-type"), "")
    if is_structured(content_type):
        return read_structured(content_type, body)
    texts = [(name, _text(name, value, faults)) for name, value in named if name.startswith(PREFIX)]
    if not texts:
        raise InvalidCloudEvent(["neither ce- headers nor a content-type of application/cloudevents+json"])
    attributes = binary_attributes([*texts, ("content-type", content_type.strip())], PREFIX, faults)
    if body and is_json(attributes.get("datacontenttype")):
        faults += _json_faults(body)
    return from_attributes(attributes, body or None, faults)


def _text(name: str, value: bytes, faults: list[str]) -> str:
    try:
        text = value.strip(b" \t").decode()
        if quoted := _QUOTED.fullmatch(text):
            text = re.sub(r"\\(.)", r"\1", quoted[1])
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        faults.append(f"{name[:80]!r} is not UTF-8")
        return ""


def _json_faults(body: bytes) -> list[str]:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        return [f"the data is not JSON: {error}"]
    return []
