"""What Amazon EventBridge says of an S3 object, in the form of the records that S3 itself writes.

Its message holds one event, names things in its own way, and does not escape the key (Amazon S3 User Guide, "EventBridge
event message structure").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_plus

CREATED: Final[Mapping[str, str]] = {
    "PutObject": "Put",
    "POST Object": "Post",
    "CopyObject": "Copy",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}
"""The operations that put an object there, by what EventBridge gives as the reason."""


def is_eventbridge(message: Mapping[str, Any]) -> bool:
    """Tell whether a message is one of EventBridge's."""
    return "detail-type" in message and "detail" in message


def as_record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message as a record of S3; what S3 does not tell of has an `eventName` that nobody looks for."""
    detail = _object(message["detail"])
    stored = _object(detail.get("object"))
    names = {"key": "key", "size": "size", "etag": "eTag", "version-id": "versionId", "sequencer": "sequencer"}
    renamed = {theirs: stored[ours] for ours, theirs in names.items() if ours in stored}
    if isinstance(renamed.get("key"), str):
        renamed["key"] = quote_plus(renamed["key"], safe="/")
    return {
        "eventSource": str(message.get("source", "")).replace(".", ":"),
        "eventName": _name(str(message["detail-type"]), str(detail.get("reason", "")), detail),
        "s3": {"bucket": detail.get("bucket"), "object": renamed},
    }


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(kind: str, reason: str, detail: Mapping[str, Any]) -> str:
    if kind == "Object Created" and reason in CREATED:
        return f"ObjectCreated:{CREATED[reason]}"
    if kind == "Object Deleted":
        return f"ObjectRemoved:{detail.get('deletion-type', reason)}"
    return kind
