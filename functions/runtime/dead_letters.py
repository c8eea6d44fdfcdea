"""What the data plane noted on an event that it gave up: who did not take it, what was answered last, and why."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from layerscope.events.cloudevent import CloudEvent

TRANSIENT: Final = frozenset({408, 409, 429})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that no retry could help: the function that did not take it, its last status (None: no answer), why.

    `kind` is that of the error; `place` where the letter lies in its topic, as partition:offset.
    """

    event: CloudEvent
    function: str
    status: int | None
    reason: str
    kind: str = ""
    place: str = ""

    @property
    def is_final(self) -> bool:
        """Tell a failure of the work (500 or 4xx) from one of the circumstances (503, busy, no answer)."""
        return self.status == 500 or (
            self.status is not None and 400 <= self.status < 500 and self.status not in TRANSIENT
        )


def read_dead_letter(event: CloudEvent) -> DeadLetter | None:
    """Read what the data plane noted on an event that it gave up; None where it is no dead letter."""
    destination = event.extensions.get("knativeerrordest")
    if destination is None:
        return None
    url = urlsplit(destination)
    service = (url.hostname or "").split(".")[0]  # of a host that serves one function at its root
    code = event.extensions.get("knativeerrorcode", "")
    return DeadLetter(
        event=event,
        function=url.path.strip("/") or service.removesuffix("-replay").replace("-", "_"),
        status=int(code) if code.isdigit() else None,
        reason=_reason(event.extensions.get("knativeerrordata", "")),
        kind=event.extensions.get("errorclass", ""),
        place=_place_of(event),
    )


def _reason(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace") or "no reason was given"
    except binascii.Error:
        return "no reason was given"


def _place_of(event: CloudEvent) -> str:
    partition, offset = (event.extensions.get(f"knativekafka{name}") for name in ("partition", "offset"))
    return f"{partition}:{offset}" if partition and offset else ""
