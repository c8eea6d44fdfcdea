"""Looks at many: at model versions one after the other, and at the uploads whose keys break the rule."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import RefusedKey
from layerscope.stores import damage
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.outcomes.look import Look
from layerscope.stores.outcomes.places import ADMIT, Place, Seen
from layerscope.stores.outcomes.shelves import Listed
from layerscope.stores.uploads import Upload

IN_A_ROW: Final = 3
"""Model versions that cannot be looked at, one after the other, after which it is taken to be the store itself."""

_log = logging.getLogger(__name__)


def looks(look: Look, current: Mapping[Identity, Upload], listed: Iterable[tuple[Identity, Listed]]) -> Iterator[Seen]:
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
        yield seen


def look_at_keys(
    store: ObjectStore, known: KnownOutcomes, misnamed: Iterable[Object]
) -> Iterator[tuple[Object, Place]]:
    """Yield each upload whose key breaks the rule, and how the record that says so stands."""
    listed = list(misnamed)
    recorded = {one.key: one for one in store.list(keys.PRODUCTS, keys.REFUSED_KEYS)} if listed else {}
    for one in listed:
        place = Place(ADMIT, keys.refused_key(one.key), "there")
        there = recorded.get(place.key)
        if there is not None and known.refused_keys.get(place.key, ("", False))[0] != there.etag:
            read = damage.read_json(store, keys.PRODUCTS, place.key, RefusedKey)
            known.refused_keys[place.key] = (there.etag, read is not None)
        if there is not None and known.refused_keys[place.key][1]:
            yield one, place
        elif keys.failure(place.key) in recorded:
            yield one, replace(place, state="failed", reason="failed")
        else:
            yield one, replace(place, state="missing", reason="unreadable record" if there else "never read")
