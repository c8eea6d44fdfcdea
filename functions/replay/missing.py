"""The selector *missing*: what should be in the bucket and is not, computed from facts alone.

A new recipe, a changed dataset, a late sidecar, a lost notification and a crash are all that one case: nothing lies at
the address where something should. This is the whole of it at once; `rounds` does the same bit by bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from layerscope.functions.replay.asks import Ask, request, upload_again
from layerscope.functions.replay.known import KnownOutcomes
from layerscope.functions.replay.look import Look, Seen
from layerscope.functions.replay.shelves import Listed, in_order, lost_blobs, shelves
from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import RefusedKey
from layerscope.stores import catalogue, damage, datasets
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.uploads import Upload, by_identity
from layerscope.stores.vector_store import VectorStore

__all__ = ["Ask", "KnownOutcomes", "missing"]

IN_A_ROW: Final = 3
"""Model versions that cannot be looked at, one after the other, after which it is taken to be the store itself."""

_log = logging.getLogger(__name__)


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
    refresh_datasets(store, known)
    look = Look(store, known, ask_failed, is_thorough=thorough, now=now or datetime.now(UTC))
    current, misnamed = by_identity(store.list(keys.MODELS))
    yield from refused_keys(store, known, misnamed, ask_failed=ask_failed)
    rows = {row.subject: row for row in vectors.catalogue()}
    for upload, seen in looks(look, current, shelves(store, in_order(current))):
        yield from seen.asks
        if seen.is_stale(rows.pop(upload.identity.subject, None)):
            yield request(upload.identity, "index", "its rows are not what the bucket says")
    known_rows = {identity.subject for identity in current}
    yield from (gone(subject) for subject in rows if subject not in known_rows)
    if thorough:
        losers = in_order(lost_blobs(store, known) & current.keys())
        listed = ((identity, catalogue.listing(store, identity)) for identity in losers)
        for _, seen in looks(look, current, listed):
            yield from (one for one in seen.asks if one.reason == "blob lost")


def looks(
    look: Look, current: dict[Identity, Upload], listed: Iterable[tuple[Identity, Listed]]
) -> Iterator[tuple[Upload, Seen]]:
    """Look at one model version after the other; one that the store cannot answer about is passed over.

    Raises:
        Unavailable: the store answers about none.
    """
    failed = 0
    for identity, lying in listed:
        try:
            seen = look.at(current[identity], lying)
        except Unavailable as error:
            failed += 1
            if failed >= IN_A_ROW:
                raise
            _log.warning("%s cannot be looked at, and is passed over: %s", identity.subject, error)
            continue
        failed = 0
        yield current[identity], seen


def refresh_datasets(store: ObjectStore, known: KnownOutcomes) -> set[str]:
    """Read the descriptions that are new; return the names of the datasets that have changed."""
    present = {
        one.key.partition("/")[0]: one.etag
        for one in store.list(keys.DATASETS)
        if one.key == keys.dataset_description(one.key.partition("/")[0])
    }
    before = known.datasets
    changed = {name for name, etag in present.items() if before.get(name, ("", None))[0] != etag}
    known.datasets = {
        name: (etag, datasets.describe(store, name)) if name in changed else before[name]
        for name, etag in present.items()
    }
    return changed | (before.keys() - present.keys())


def refused_keys(
    store: ObjectStore, known: KnownOutcomes, misnamed: Sequence[Object], *, ask_failed: bool = False
) -> Iterator[Ask]:
    """Yield a request for each upload whose key breaks the rule and which is not recorded as such."""
    recorded = {one.key: one for one in store.list(keys.PRODUCTS, keys.REFUSED_KEYS)} if misnamed else {}
    for one in misnamed:
        place = keys.refused_key(one.key)
        there = recorded.get(place)
        if there is not None and known.refused_keys.get(place, ("", False))[0] != there.etag:
            read = damage.read_json(store, keys.PRODUCTS, place, RefusedKey)
            known.refused_keys[place] = (there.etag, read is not None)
        is_recorded = there is not None and known.refused_keys[place][1]
        if not is_recorded and (ask_failed or keys.failure(place) not in recorded):
            yield upload_again(one.key, one.etag, one.size, "unreadable record" if there else "never read")


def gone(subject: str) -> Ask:
    """Ask for the rows of a model version that is no longer there to be removed."""
    return request(Identity.parse(subject), "index", "it is no longer there")
