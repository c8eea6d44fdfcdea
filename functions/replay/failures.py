"""What dead letters mean: which of them say that an outcome failed for good, and what is then recorded."""

from __future__ import annotations

from dataclasses import dataclass
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
from layerscope.stores.outcomes.places import ADMIT

KEPT_EVENTS: Final = 20

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
PAUSES: Final = (
    *(_MINUTE, 5 * _MINUTE, 30 * _MINUTE),
    *(2 * _HOUR, 6 * _HOUR, 12 * _HOUR, 24 * _HOUR, 24 * _HOUR),
)
"""How long an outcome that may have failed of its circumstances is left alone, after each time that it did."""

CIRCUMSTANCES: Final = frozenset({WorkerDied.__name__, SetAside.__name__})
"""Kinds of error (an answer's `kne-errorclass`) behind which there may be more than the work."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a dead letter is about, as the bucket has it now: the ETag of the upload, the key of the outcome, whether it is there.

    Nothing stands where there is no such upload, or no such outcome to be made of it.
    """

    upload: str = ""
    outcome: str = ""
    is_there: bool = False


def record_failure(store: ObjectStore, letter: DeadLetter, now: datetime | None = None) -> ProductFailed | None:
    """Record that an outcome failed; None where there is nothing to record, as the outcome is there or out of date."""
    found = wanted(store, letter)
    if not found.outcome or found.is_there:
        return None
    place, identity = found.outcome, Identity.parse(letter.event.subject)
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


def wanted(store: ObjectStore, letter: DeadLetter) -> Wanted:
    """Return which outcome a function did not make, of which upload.

    Raises:
        Unavailable: the object store does not answer.
    """
    try:
        identity = Identity.parse(letter.event.subject)
    except ValueError:
        return Wanted()
    upload = uploads.current(store, identity)
    if upload is None:
        return Wanted()
    record = uploads.record(store, upload)
    if letter.function == ADMIT:
        return Wanted(upload.etag, upload.record_key, record is not None)
    if record is None or record.content is None:
        return Wanted(upload.etag)
    try:
        product = product_named(letter.function)
    except KeyError:
        return Wanted(upload.etag)
    facts, run = uploads.facts(store, record), _run_beside(letter)
    key = manifest_key(product, facts)
    is_there = product_store.manifest(store, product, facts, run) is not None
    return Wanted(upload.etag, keys.beside(run, key) if run else key, is_there)


def _run_beside(letter: DeadLetter) -> str | None:
    """Return the run for which a product was to be made once more; None: it was to be made at its own place."""
    if letter.event.type != ProductRequested.type:
        return None
    try:
        return read(letter.event, ProductRequested).beside
    except InvalidEventData:
        return None
