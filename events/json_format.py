"""CloudEvents JSON format: a whole event as one JSON object, the body of the structured mode of every binding.

The SDK reads it. What it would accept or misread against the specification is checked before, and put right after;
`tests/events/test_sdk.py` has the list. Nothing here writes the format: our events travel in binary mode.
"""

from __future__ import annotations

import base64
import binascii
import json
from codecs import BOM_UTF8
from typing import Any, Final

from cloudevents.core.formats.json import JSONFormat
from pydantic_core import from_json

from layerscope.events.attributes import is_json
from layerscope.events.cloudevent import JSON, CloudEvent, InvalidCloudEvent, from_attributes

FORMAT: Final = JSONFormat()
MEDIA_TYPE: Final = FORMAT.get_content_type()
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


def from_object(body: bytes) -> CloudEvent:
    """Read an event from a JSON object; a null attribute counts as absent, whole numbers and booleans become text.

    Raises:
        InvalidCloudEvent: with all that is wrong with it.
    """
    members = _members(body)
    faults = _data_faults(members)
    has_data = "data" in members
    # Not for the SDK to read: it refuses a leap second, and reads the events of an older version by other rules.
    apart = {name: members.pop(name, None) for name in ("specversion", "time")}

    def made(attributes: dict[str, Any], value: Any) -> CloudEvent:
        attributes |= apart
        if has_data:
            # The specification reads data without a type as JSON, and wants that said where the event travels on.
            if attributes.get("datacontenttype") is None:
                attributes["datacontenttype"] = JSON
            value = _data(value, str(attributes["datacontenttype"]), faults)
        return from_attributes(attributes, value, faults)

    event = FORMAT.read(made, json.dumps(members))
    assert isinstance(event, CloudEvent)
    return event


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = from_json(body.removeprefix(BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidCloudEvent([f"the body is not JSON: {error}"]) from error
    if not isinstance(members, dict):
        raise InvalidCloudEvent(["the body is not a JSON object"])
    return members


def _data_faults(members: dict[str, Any]) -> list[str]:
    """Return what is wrong with data in base64, and take it out if it is."""
    encoded = members.get("data_base64")
    if encoded is None:
        return []
    if "data" in members:
        fault = "data and data_base64 are both there"
    elif not _is_base64(encoded):
        fault = "data_base64 is not base64"
    else:
        return []
    del members["data_base64"]
    return [fault]


def _is_base64(value: Any) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return False
    return True


def _data(value: Any, media_type: str, faults: list[str]) -> bytes | None:
    """Return the member `data` as it travels outside of JSON."""
    if is_json(media_type):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except ValueError:
            faults.append("data has a number beyond the doubles")
    elif isinstance(value, str):
        return value.encode()
    elif value is not None:
        faults.append("data is not text, though its type is not JSON")
    return None
