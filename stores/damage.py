"""Stored JSON that cannot be read: it counts as absent, is reported, and may be replaced; it stops no work on others.

Whoever reads an outcome reads it here, and so does whoever stores one: a conditional put alone would keep a bad one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from prometheus_client import Counter

from layerscope.schemas import keys
from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.manifests import StoredJson
from layerscope.stores.object_store import ObjectStore

T = TypeVar("T", bound=StoredJson)

TRIES: Final = 5
REPORTED: Final = 10_000

_log = logging.getLogger(__name__)
_unreadable = Counter("layerscope_unreadable_objects", "Stored objects that were found damaged or lost", ["bucket"])
_reported: dict[tuple[str, str, str], None] = {}


def report(bucket: str, key: str, fault: str) -> None:
    """Log and count a damaged object: once in this process, however often it is looked at."""
    if (bucket, key, fault) in _reported:
        return
    if len(_reported) >= REPORTED:
        _reported.clear()
    _reported[bucket, key, fault] = None
    _unreadable.labels(bucket).inc()
    _log.warning("%s/%s %s: it counts as absent", bucket, key, fault)


def read_json(
    store: ObjectStore, bucket: str, key: str, kind: type[T], belongs: Callable[[T], bool] = lambda _: True
) -> T | None:
    """Return the JSON object at `key`; None where there is none, or none that can be read and `belongs` there."""
    try:
        return parse(bucket, key, store.get(bucket, key), kind, belongs)
    except NotFound:
        return None


def parse(
    bucket: str, key: str, content: bytes, kind: type[T], belongs: Callable[[T], bool] = lambda _: True
) -> T | None:
    """Return the JSON object that these bytes of an object are; None, and a report, where they are none."""
    try:
        found = kind.from_bytes(content)
    except ValueError:
        report(bucket, key, "is empty" if not content else f"cannot be read as {kind.__name__}")
        return None
    if not belongs(found):
        report(bucket, key, f"holds the {kind.__name__} of something else")
        return None
    return found


def settle(store: ObjectStore, key: str, made: T, stands: Callable[[T], bool]) -> T:
    """Store an outcome in the bucket `products`, and return what is there afterwards.

    Whoever stores an outcome first has made it. What is there already gives way where it cannot be read, or where
    `stands` denies it; of several who replace it at once, one succeeds, and all return the same.

    Raises:
        Unavailable: the store does not answer, or others change the object all the time.
    """
    content = made.to_bytes()
    for _ in range(TRIES):
        if store.put(keys.PRODUCTS, key, content, media_type=DATA_TYPE, only_if_absent=True):
            return made
        try:
            there = store.head(keys.PRODUCTS, key)
            etag = there.etag if there else ""
            found = parse(keys.PRODUCTS, key, store.get(keys.PRODUCTS, key, etag=etag), type(made))
            if found is not None and (found == made or stands(found)):
                return found
            store.put(keys.PRODUCTS, key, content, media_type=DATA_TYPE, replaces=etag)
        except (NotFound, Changed):
            continue
        return made
    raise Unavailable(f"{key} is being changed by others all the time")
