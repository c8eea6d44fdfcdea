"""What dead letters mean: which of them say that an outcome failed for good, and what is then recorded."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from layerscope.events.cloudevent import CloudEvent
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.events import ProductFailed
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure
from layerscope.schemas.products import product_named
from layerscope.stores import product_store, uploads
from layerscope.stores.object_store import ObjectStore

TRANSIENT = frozenset({408, 409, 429})
KEPT_EVENTS = 20


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that no retry could help: the function that did not take it, its last status (None: no answer), why."""

    event: CloudEvent
    function: str
    status: int | None
    reason: str

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
    )


def record_failure(store: ObjectStore, letter: DeadLetter) -> ProductFailed | None:
    """Record that an outcome failed; None where there is nothing to record, as the outcome is there or out of date."""
    try:
        identity = Identity.parse(letter.event.subject)
    except ValueError:
        return None
    place = _place(store, identity, letter.function)
    if place is None:
        return None
    earlier = product_store.failure(store, place)
    events = tuple(dict.fromkeys([*(earlier.events if earlier else ()), letter.event.id]))[-KEPT_EVENTS:]
    attempts = (earlier.attempts if earlier else 0) + (earlier is None or letter.event.id not in earlier.events)
    who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
    address = place.rpartition("/")[2].removesuffix(".json")
    said = {**who, "function": letter.function, "address": address, "reason": letter.reason, "attempts": attempts}
    failure = Failure.model_validate({**said, "events": events})
    store.put(keys.PRODUCTS, keys.failure(place), failure.to_bytes(), media_type=DATA_TYPE)
    return ProductFailed.model_validate(said)


def _place(store: ObjectStore, identity: Identity, function: str) -> str | None:
    """Return the key of the outcome that the function did not make; None where it is there, or not its to make."""
    upload = uploads.current(store, identity)
    if upload is None:
        return None
    record = uploads.record(store, upload)
    if function == "admit":
        return upload.record_key if record is None else None
    if record is None or record.content is None:
        return None
    try:
        product = product_named(function)
    except KeyError:
        return None
    facts = uploads.facts(store, record)
    return None if product_store.manifest(store, product, facts) else manifest_key(product, facts)


def _reason(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace") or "no reason was given"
    except binascii.Error:
        return "no reason was given"
