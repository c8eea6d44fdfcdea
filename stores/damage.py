"""Stored JSON that cannot be read: it counts as absent, is reported, and may be replaced; it stops no work on others.

Whoever reads an outcome reads it here, and so does whoever stores one: a conditional put alone would keep a bad one.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from prometheus_client import Counter

from layerscope.schemas import keys
from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.manifests import StoredJson
from layerscope.stores.object_store import Object, ObjectStore

T = TypeVar("T", bound=StoredJson)

TRIES: Final = 5
REPORTED: Final = 10_000
KEPT: Final = 2_048
"""Objects whose JSON is kept, a store: some 5 KB each."""

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


def read_listed(
    store: ObjectStore, bucket: str, listed: Object, kind: type[T], belongs: Callable[[T], bool] = lambda _: True
) -> T | None:
    """Return the same of an object that a list has just shown: what was read at its ETag before is not read again."""
    kept, place = _kept(store), (bucket, listed.key, listed.etag, kind)
    found = kept.get(place)
    if found is None:
        try:
            content = store.get(bucket, listed.key, etag=listed.etag)
        except (NotFound, Changed):  # since it was listed
            return read_json(store, bucket, listed.key, kind, belongs)
        found = parse(bucket, listed.key, content, kind)
        kept.keep(place, found)
    return found if isinstance(found, kind) and _belongs(bucket, listed.key, found, belongs) else None


def parse(
    bucket: str, key: str, content: bytes, kind: type[T], belongs: Callable[[T], bool] = lambda _: True
) -> T | None:
    """Return the JSON object that these bytes of an object are; None, and a report, where they are none."""
    try:
        found = kind.from_bytes(content)
    except ValueError:
        report(bucket, key, "is empty" if not content else f"cannot be read as {kind.__name__}")
        return None
    return found if _belongs(bucket, key, found, belongs) else None


def _belongs(bucket: str, key: str, found: T, belongs: Callable[[T], bool]) -> bool:
    if belongs(found):
        return True
    report(bucket, key, f"holds the {type(found).__name__} of something else")
    return False


class _Kept:
    """What was read of one store, by bucket, key, ETag and kind; what was asked for last stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[str, str, str, type[StoredJson]], StoredJson] = OrderedDict()

    def get(self, place: tuple[str, str, str, type[StoredJson]]) -> StoredJson | None:
        with self._lock:
            if place in self._found:
                self._found.move_to_end(place)
            return self._found.get(place)

    def keep(self, place: tuple[str, str, str, type[StoredJson]], found: StoredJson | None) -> None:
        if found is None:
            return
        with self._lock:
            self._found[place] = found
            if len(self._found) > KEPT:
                self._found.popitem(last=False)


_of_stores: WeakKeyDictionary[ObjectStore, _Kept] = WeakKeyDictionary()


def _kept(store: ObjectStore) -> _Kept:
    return _of_stores.setdefault(store, _Kept())


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
