"""CloudEvents HTTP binding: an event as headers and body, of a request or of an answer.

The SDK writes and reads it. What it would accept or misread against the specification is dealt with before it sees a
message; `tests/events/test_sdk.py` has the list.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from cloudevents.core.bindings import http as sdk
from pydantic_core import from_json

from layerscope.events.attributes import is_json
from layerscope.events.binary_mode import CONTENT_TYPE, event_headers, event_maker
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.json_format import FORMAT, is_structured, read_structured

PREFIX: Final = sdk.CE_PREFIX

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def to_binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the event in binary mode."""
    message = sdk.to_binary(event, FORMAT)
    return message.headers, message.body


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
    named = [(name.decode("latin-1").lower(), value) for name, value in headers]
    content_type = next((value.decode("latin-1").strip() for name, value in named if name == CONTENT_TYPE), "")
    if is_structured(content_type):
        return read_structured(content_type, body)
    faults: list[str] = []
    texts = [(name, _text(name, value, faults)) for name, value in named if name.startswith(PREFIX)]
    if not texts:
        raise InvalidCloudEvent(["neither ce- headers nor a content-type of application/cloudevents+json"])
    if is_json(content_type):
        body = body.removeprefix(BOM_UTF8)  # some editors put it before a text; JSON has no place for it
    if body and is_json(content_type):
        faults += _json_faults(body)
    attributes = event_headers(texts, PREFIX, faults)
    time = attributes.pop(f"{PREFIX}time", None)
    made = event_maker(None if time is None else unquote(time), body or None, faults)
    if content_type:
        attributes[CONTENT_TYPE] = content_type
    event = sdk.from_binary(sdk.HTTPMessage(attributes, b""), FORMAT, made)
    assert isinstance(event, CloudEvent)
    return event


def _text(name: str, value: bytes, faults: list[str]) -> str:
    """Return a header as the SDK may decode it: without the quotes of older senders, and UTF-8 once it is decoded."""
    try:
        text = value.strip(b" \t").decode()
        if quoted := _QUOTED.fullmatch(text):
            text = re.sub(r"\\(.)", r"\1", quoted[1])
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        faults.append(f"{name[:80]!r} is not UTF-8")
        return ""
    return text


def _json_faults(body: bytes) -> list[str]:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        return [f"the data is not JSON: {error}"]
    return []
