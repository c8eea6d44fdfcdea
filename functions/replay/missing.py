"""The selector *missing*: what should be in the bucket and is not, computed from facts alone.

A new recipe, a changed dataset, a late sidecar, a lost notification and a crash are all that one case: nothing lies at
the address where something should. This is the whole of it at once; `rounds` does the same bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from layerscope.functions.replay.asks import Ask, asks_of, request, upload_again
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.stores import catalogue
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.outcomes.look import LOST, Look
from layerscope.stores.outcomes.shelves import in_order, lost_blobs, shelves
from layerscope.stores.outcomes.sweep import look_at_keys, looks
from layerscope.stores.uploads import by_identity
from layerscope.stores.vector_store import VectorStore


def missing(
    store: ObjectStore,
    vectors: VectorStore,
    known: KnownOutcomes,
    *,
    ask_failed: bool = False,
    thorough: bool = False,
    now: datetime | None = None,
) -> Iterator[Ask]:
    """Yield a request for each outcome that should be there and is not, and for each model whose rows are stale.

    Args:
        known: what earlier looks have read.
        ask_failed: ask also for what has failed before, and is not due.
        thorough: read every record and manifest that is not known yet, and compare all blobs with them.
        now: the time by which a failure may be due again.

    Raises:
        Unavailable: the store or the index does not answer.
    """
    known.refresh_datasets(store)
    look = Look(store, known, is_thorough=thorough, now=now or datetime.now(UTC))
    current, misnamed = by_identity(store.list(keys.MODELS))
    yield from asks_of_keys(store, known, misnamed, failed=ask_failed)
    rows = {row.subject: row for row in vectors.catalogue()}
    for seen in looks(look, current, shelves(store, in_order(current))):
        yield from asks_of(seen, failed=ask_failed)
        if seen.is_stale(rows.pop(seen.upload.identity.subject, None)):
            yield request(seen.upload.identity, "index", "its rows are not what the bucket says")
    known_rows = {identity.subject for identity in current}
    yield from (gone(subject) for subject in rows if subject not in known_rows)
    if thorough:
        losers = in_order(lost_blobs(store, known) & current.keys())
        listed = ((identity, catalogue.listing(store, identity)) for identity in losers)
        for seen in looks(look, current, listed):
            yield from (one for one in asks_of(seen, failed=ask_failed) if one.reason == LOST)


def asks_of_keys(
    store: ObjectStore, known: KnownOutcomes, misnamed: Sequence[Object], *, failed: bool = False
) -> Iterator[Ask]:
    """Yield a request for each upload whose key breaks the rule and which is not recorded as such."""
    for one, place in look_at_keys(store, known, misnamed):
        if place.state == "missing" or (failed and place.state == "failed"):
            yield upload_again(one.key, one.etag, one.size, place.reason)


def gone(subject: str) -> Ask:
    """Ask for the rows of a model version that is no longer there to be removed."""
    return request(Identity.parse(subject), "index", "it is no longer there")
