"""CloudEvents JSON format: a whole event as one JSON object, the body of the structured mode of every binding."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from pydantic_core import from_json

from layerscope.events.cloudevent import JSON, CloudEvent, InvalidCloudEvent, from_attributes, is_json

MEDIA_TYPE: Final = "application/cloudevents+json"
ANY_FORMAT: Final = "application/cloudevents"
BATCH: Final = "application/cloudevents-batch"


def is_structured(content_type: str) -> bool:
    """Tell whether a message of this content type holds a whole event, in whatever format."""
    return content_type.strip().lower().startswith(ANY_FORMAT)


def read_structured(content_type: str, body: bytes) -> CloudEvent:
    """Read the event that a structured message holds.

    Raises:
        InvalidCloudEvent: it is a batch, in another format than JSON, or not a valid event.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith(BATCH):
        raise InvalidCloudEvent(["a batch of events is not accepted: send them one by one"])
    if media_type not in (MEDIA_TYPE, ANY_FORMAT):
        raise InvalidCloudEvent([f"the event format {media_type[:80]!r} is not {MEDIA_TYPE}"])
    return from_object(body)


def to_object(event: CloudEvent) -> bytes:
    """Return the event as a JSON object: JSON data as the member `data`, any other as `data_base64`."""
    members: dict[str, Any] = dict(event.attributes())
    if event.data is not None:
        members |= _data_member(event)
    return _encoded(members)


def from_object(body: bytes) -> CloudEvent:
    """Read an event from a JSON object; a null attribute counts as absent, whole numbers and booleans become text.

    Raises:
        InvalidCloudEvent: with all that is wrong with it.
    """
    try:
        members = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidCloudEvent([f"the body is not JSON: {error}"]) from error
    if not isinstance(members, dict):
        raise InvalidCloudEvent(["the body is not a JSON object"])
    faults: list[str] = []
    has_data = "data" in members
    plain, encoded = members.pop("data", None), members.pop("data_base64", None)
    attributes = {name: _text(name, value, faults) for name, value in members.items() if value is not None}
    if has_data and encoded is not None:
        faults.append("data and data_base64 are both there")
    elif has_data:
        # The specification reads data without a type as JSON, and wants that said where the event travels on.
        media_type = attributes.setdefault("datacontenttype", JSON)
        return from_attributes(attributes, _plain_data(plain, media_type, faults), faults)
    return from_attributes(attributes, _decoded(encoded, faults), faults)


def _data_member(event: CloudEvent) -> dict[str, Any]:
    data = event.data or b""
    if is_json(event.datacontenttype):
        try:
            value = from_json(data, allow_inf_nan=False)
            _encoded(value)
        except ValueError:  # not JSON after all, or a number beyond the doubles
            pass
        else:
            return {"data": value}
    return {"data_base64": base64.b64encode(data).decode()}


def _text(name: str, value: Any, faults: list[str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    faults.append(f"{name[:80]!r} is not text, a whole number or a boolean")
    return ""


def _plain_data(value: Any, media_type: str, faults: list[str]) -> bytes | None:
    if is_json(media_type):
        try:
            return _encoded(value)
        except ValueError:
            faults.append("data has a number beyond the doubles")
    elif isinstance(value, str):
        return value.encode()
    elif value is not None:
        faults.append("data is not text, though its type is not JSON")
    return None


def _decoded(value: Any, faults: list[str]) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        faults.append("data_base64 is not base64")
    return None


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
