"""The events as AsyncAPI 3.0 says it: topics are channels, event types are messages, functions send and receive.

An event is a CloudEvent in Kafka's binary mode (CloudEvents Kafka protocol binding 1.0.2): attributes are headers with
the prefix `ce_`, and the data are the record's value.
"""

from __future__ import annotations

import json
from typing import Any, Final

from layerscope.contracts.examples import EXAMPLES
from layerscope.events.cloudevent import compose
from layerscope.events.topics import DEAD_LETTERS, EVENTS, S3_RAW
from layerscope.schemas.events import EventData, declared_events, schema_name

VERSION: Final = "3.0.0"
_TEXT: Final = {"type": "string"}
_REQUIRED: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "content-type")
_OPTIONAL: Final = {
    "ce_time": {"type": "string", "format": "date-time"},
    "ce_dataschema": {"type": "string", "format": "uri"},
    "ce_partitionkey": {"type": "string", "description": "the model; events of one model stay in order"},
    "ce_sequence": _TEXT,
    "ce_product": {"type": "string", "description": "of events about a product, its name"},
    "ce_lane": {"type": "string", "enum": ["replay"], "description": "there: work that was asked for again"},
    "ce_correlationid": {"type": "string", "description": "of the upload that all this came from"},
    "ce_causationid": {"type": "string", "description": "id of the event that this one answers"},
    "ce_replayid": _TEXT,
    "ce_traceparent": {"type": "string", "description": "W3C Trace Context"},
}


def document(version: str) -> dict[str, Any]:
    """Return the AsyncAPI document for this version of the software."""
    types = declared_events()
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Layerscope events",
            "version": version,
            "description": "Every fact is a CloudEvent; its id is a digest of the fact, so the same fact has the same id.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel(EVENTS, "the log: every event, kept for good", types),
            "notifications": {
                "address": S3_RAW,
                "description": "what the object store tells of its bucket: S3 event notifications",
                "messages": {"notification": {"$ref": "#/components/messages/s3.notification"}},
            },
            "deadLetters": _channel(DEAD_LETTERS, "events that no retry could help, with why as kne- headers", types),
        },
        "operations": {
            "tell": {"action": "send", "channel": {"$ref": "#/channels/events"}},
            "hear": {"action": "receive", "channel": {"$ref": "#/channels/events"}},
            "announce": {"action": "receive", "channel": {"$ref": "#/channels/notifications"}},
            "recordFailures": {"action": "receive", "channel": {"$ref": "#/channels/deadLetters"}},
        },
        "components": {
            "messages": {schema_name(one): _message(one) for one in types}
            | {
                "s3.notification": {
                    "name": "s3.notification",
                    "summary": "An S3 event notification: a JSON object with Records, as AWS, MinIO and Ceph write it.",
                    "payload": {
                        "type": "object",
                        "properties": {"Records": {"type": "array"}},
                        "required": ["Records"],
                    },
                }
            }
        },
    }


def _channel(topic: str, description: str, types: tuple[type[EventData], ...]) -> dict[str, Any]:
    messages = {schema_name(one): {"$ref": f"#/components/messages/{schema_name(one)}"} for one in types}
    return {"address": topic, "description": description, "messages": messages, "bindings": {"kafka": {"topic": topic}}}


def _message(data: type[EventData]) -> dict[str, Any]:
    name = schema_name(data)
    fixed = {
        "ce_specversion": {"const": "1.0"},
        "ce_type": {"const": data.type},
        "content-type": {"const": "application/json"},
    }
    texts = {header: _TEXT for header in _REQUIRED if header not in fixed}
    event = compose(EXAMPLES[data], source="/functions/example", subject="digits/lenet/3")
    shown = {key: value for key, value in event.attributes().items() if key not in ("time", "datacontenttype")}
    attributes = {f"ce_{key}": value for key, value in shown.items()}
    return {
        "name": data.type,
        "summary": (data.__doc__ or "").strip(),
        "contentType": "application/json",
        "headers": {"type": "object", "required": list(_REQUIRED), "properties": {**texts, **fixed, **_OPTIONAL}},
        "payload": {"$id": f"urn:layerscope:schemas:events/{name}.json", **data.model_json_schema()},
        "examples": [
            {
                "name": name,
                "headers": {**attributes, "content-type": "application/json"},
                "payload": json.loads(event.data or b"{}"),
            }
        ],
    }
