"""What dead letters mean: which of them say that an outcome failed for good, and what is then recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from layerscope.events.cloudevent import InvalidEventData, read
from layerscope.functions.runtime.dead_letters import DeadLetter
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.errors import SetAside, WorkerDied
from layerscope.schemas.events import ProductFailed, ProductRequested
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure
from layerscope.schemas.products import product_named
from layerscope.stores import product_store, uploads
from layerscope.stores.object_store import ObjectStore

KEPT_EVENTS: Final = 20

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
PAUSES: Final = (
    *(_MINUTE, 5 * _MINUTE, 30 * _MINUTE),
    *(2 * _HOUR, 6 * _HOUR, 12 * _HOUR, 24 * _HOUR, 24 * _HOUR),
)
"""How long an outcome that may have failed of its circumstances is left alone, after each time that it did."""

CIRCUMSTANCES: Final = frozenset({WorkerDied.__name__, SetAside.__name__})
"""Kinds of error (an answer's `kne-errorclass`) behind which there may be more than the work."""


def record_failure(store: ObjectStore, letter: DeadLetter, now: datetime | None = None) -> ProductFailed | None:
    """Record that an outcome failed; None where there is nothing to record, as the outcome is there or out of date."""
    try:
        identity = Identity.parse(letter.event.subject)
    except ValueError:
        return None
    place = _place(store, identity, letter)
    if place is None:
        return None
    failure = _failure(identity, place, letter, product_store.failure(store, place), now or datetime.now(UTC))
    store.put(keys.PRODUCTS, keys.failure(place), failure.to_bytes(), media_type=DATA_TYPE)
    return ProductFailed.model_validate(failure.model_dump(include=set(ProductFailed.model_fields)))


def _failure(identity: Identity, place: str, letter: DeadLetter, earlier: Failure | None, now: datetime) -> Failure:
    """Return what is recorded after one more dead letter; the same letter, read again, changes nothing."""
    seen = () if earlier is None else earlier.letters if letter.place else earlier.events
    mark = letter.place or letter.event.id
    if earlier is not None and mark in seen:
        return earlier
    may_pass = letter.kind in CIRCUMSTANCES
    asked_again = earlier.asked_again if earlier else 0
    pause = PAUSES[asked_again] if may_pass and asked_again < len(PAUSES) else None
    events = tuple(dict.fromkeys([*(earlier.events if earlier else ()), letter.event.id]))
    letters = (*(earlier.letters if earlier else ()), *([letter.place] if letter.place else ()))
    return Failure(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        function=letter.function,
        address=place.rpartition("/")[2].removesuffix(".json"),
        reason=letter.reason,
        attempts=(earlier.attempts if earlier else 0) + 1,
        events=events[-KEPT_EVENTS:],
        letters=letters[-KEPT_EVENTS:],
        cause="circumstances" if may_pass else "work",
        failed_at=now,
        ask_again_at=None if pause is None else now + pause,
        asked_again=asked_again + (pause is not None),
    )


def _place(store: ObjectStore, identity: Identity, letter: DeadLetter) -> str | None:
    """Return the key of the outcome that the function did not make; None where it is there, or not its to make."""
    function, run = letter.function, _run_beside(letter)
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
    if product_store.manifest(store, product, facts, run):
        return None
    key = manifest_key(product, facts)
    return keys.beside(run, key) if run else key


def _run_beside(letter: DeadLetter) -> str | None:
    """Return the run for which a product was to be made once more; None: it was to be made at its own place."""
    if letter.event.type != ProductRequested.type:
        return None
    try:
        return read(letter.event, ProductRequested).beside
    except InvalidEventData:
        return None
