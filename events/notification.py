"""Storage notifications: the record that an S3 store publishes about an object, read as facts of ours.

MinIO writes `{"EventName", "Key", "Records": [...]}`, to Kafka and to webhooks alike; AWS, Ceph and others the same
`Records` with small differences; EventBridge another form, that `events.eventbridge` turns into a record.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import Any, Final
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from layerscope.events.cloudevent import first_fault
from layerscope.events.eventbridge import as_record, is_eventbridge
from layerscope.schemas.errors import InvalidEvent
from layerscope.schemas.events import ModelRemoved, ModelUploaded
from layerscope.schemas.keys import MODELS

# By name, for ObjectCreated:* fires on a change of tags, retention or legal hold as well.
UPLOADED: Final = frozenset(f"ObjectCreated:{how}" for how in ("Put", "CompleteMultipartUpload", "Copy", "Post"))
REMOVED: Final = ("ObjectRemoved:", "LifecycleExpiration:", "LifecycleDelMarkerExpiration:")

TEST_EVENT: Final = "s3:TestEvent"  # AWS sends one when a notification is set up

_SEQUENCER = re.compile(r"[0-9A-F]{1,64}")


class InvalidNotification(InvalidEvent):
    """What arrived is not a notification of an S3 store; a dead letter at once."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Bucket(_Part):
    name: str


class _Object(_Part):
    key: str = Field(min_length=1)
    size: int = Field(default=0, ge=0)
    etag: str = Field(default="", alias="eTag")
    version_id: str | None = Field(default=None, alias="versionId")
    sequencer: str | None = None


class _S3(_Part):
    bucket: _Bucket
    object: _Object


class _Record(_Part):
    source: str = Field(alias="eventSource", pattern=r"^[a-z0-9]+:s3$")
    name: str = Field(alias="eventName")
    s3: _S3


def read_notification(value: bytes | None, bucket: str = MODELS) -> list[ModelUploaded | ModelRemoved]:
    """Return what a notification says about the bucket of uploads, record by record; nothing else counts.

    Args:
        value: the notification.
        bucket: what the store calls the bucket of uploads, which to us is `models` under any name.

    Raises:
        InvalidNotification: these bytes are no notification, or a record that counts is not whole.
    """
    facts = [_fact(record, bucket) for record in _records(value)]
    return [fact for fact in facts if fact is not None]


def _records(value: bytes | None) -> list[Any]:
    try:
        message = from_json((value or b"").removeprefix(BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidNotification(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise InvalidNotification("not a JSON object")
    if message.get("Event") == TEST_EVENT:
        return []
    if is_eventbridge(message):
        return [as_record(message)]
    records = message.get("Records")
    if not isinstance(records, list):
        raise InvalidNotification("no list of Records")
    return records


def _fact(content: Any, bucket: str) -> ModelUploaded | ModelRemoved | None:
    name = content.get("eventName") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise InvalidNotification("a record has no eventName")
    name = name.removeprefix("s3:")
    if name not in UPLOADED and not name.startswith(REMOVED):
        return None
    try:
        record = _Record.model_validate(content)
    except ValidationError as error:
        raise InvalidNotification(f"a record of {name}: {first_fault(error)}") from error
    stored = record.s3.object
    if record.s3.bucket.name != bucket:
        return None
    if name not in UPLOADED:
        return ModelRemoved(bucket=MODELS, key=_key(stored.key), sequencer=_sequencer(stored.sequencer))
    etag = stored.etag.strip('"')
    if not etag:
        raise InvalidNotification(f"a record of {name} has no eTag")
    return ModelUploaded(
        bucket=MODELS,
        key=_key(stored.key),
        etag=etag,
        size=stored.size,
        version_id=None if stored.version_id in ("", "null") else stored.version_id,
        sequencer=_sequencer(stored.sequencer),
    )


def _key(encoded: str) -> str:
    try:
        return unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidNotification("a record's key is not UTF-8") from error


def _sequencer(text: str | None) -> str | None:
    """Return the sequencer in the one form in which two of a key compare as text; None: the order is not known."""
    upper = (text or "").upper()
    return upper if _SEQUENCER.fullmatch(upper) else None
