"""What a subscriber may answer, and what then becomes of an event of a Trigger that retries three times.

The rows of what was observed on Knative's Kafka data plane, and a few more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloudevents.core.formats.json import JSONFormat

from tests.layerscope.dataplane.scripted import ANSWER, BINARY, HEADERS_ONLY, RESET, TEXT, Reply

NO_ID = tuple((name, value) for name, value in BINARY if name != "ce-id")
BATCH = (("content-type", "application/cloudevents-batch+json"),)
STRUCTURED = (("content-type", "application/cloudevents+json"),)
WHOLE = JSONFormat().write(ANSWER)


@dataclass(frozen=True)
class Case:
    """Answers; how often the subscriber is called; what the dead letter says, if there is one; whether one replied."""

    answers: tuple[Reply, ...]
    calls: int = 1
    told: tuple[str, ...] | None = None  # dest, code, data: which of them the dead letter has; None: no dead letter
    code: str = ""
    replied: bool = False


DEST: Final = ("knativeerrordest",)
CODE: Final = ("knativeerrorcode", "knativeerrordest")
DATA: Final = ("knativeerrorcode", "knativeerrordata", "knativeerrordest")


TABLE: Final = {
    "204": Case((Reply(204),)),
    "202 empty": Case((Reply(202),)),
    "200 empty": Case((Reply(200),)),
    "200 + binary event": Case((Reply(200, BINARY, ANSWER.data or b""),), replied=True),
    "202 + binary event": Case((Reply(202, BINARY, ANSWER.data or b""),), replied=True),
    "200 + structured event": Case((Reply(200, STRUCTURED, WHOLE),), replied=True),
    "200 + ce- headers without body": Case((Reply(200, HEADERS_ONLY),), replied=True),
    "204 + ce- headers": Case((Reply(204, HEADERS_ONLY),), replied=True),
    "200 text": Case((Reply(200, TEXT, b"fine"),), told=DEST),
    "200 JSON": Case((Reply(200, (("content-type", "application/json"),), b"{}"),), told=DEST),
    "200 batch": Case((Reply(200, BATCH, b"[" + WHOLE + b"]"),), told=DEST),
    "200 event without id": Case((Reply(200, NO_ID, ANSWER.data or b""),), told=DEST),
    "200 + event of 2 MB": Case((Reply(200, BINARY, b'"' + b"x" * 2_000_000 + b'"'),), told=DEST),
    **{str(code): Case((Reply(code),), told=CODE, code=str(code)) for code in (400, 401, 403, 410, 413, 422, 425)},
    "422 + body": Case((Reply(422, TEXT, b"why"),), told=DATA, code="422"),
    "500 + event": Case((Reply(500, BINARY, b"{}"),), calls=4, told=DATA, code="500"),
    **{
        str(code): Case((Reply(code),), calls=4, told=CODE, code=str(code))
        for code in (404, 408, 409, 429, 500, 501, 502, 503, 504)
    },
    "503 then 204": Case((Reply(503), Reply(204)), calls=2),
    "503 then event": Case((Reply(503), Reply(200, BINARY, b"{}")), calls=2, replied=True),
    "503 then 422": Case((Reply(503), Reply(422)), calls=2, told=CODE, code="422"),
    "429 + Retry-After": Case((Reply(429, (("retry-after", "5"),)), Reply(204)), calls=2),
    "reset": Case((RESET,), calls=4, told=DEST),
    "reset then 204": Case((RESET, Reply(204)), calls=2),
    "503 then reset": Case((Reply(503), RESET), calls=4, told=DEST),
    **{str(code): Case((Reply(code),), told=CODE, code=str(code)) for code in (300, 301, 302, 304, 307, 308)},
    "301 + Location": Case((Reply(301, (("location", "/there"),)),), told=CODE, code="301"),
    "303 without Location": Case((Reply(303),), told=CODE, code="303"),
}
