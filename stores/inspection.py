"""Every stored object read once and compared with its digest or its schema: `layerscope doctor --deep`."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from layerscope.schemas import keys
from layerscope.schemas.errors import NotFound, Unavailable
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.manifests import Failure, Manifest, RefusedKey, StoredJson, UploadRecord
from layerscope.schemas.notifications import Notification
from layerscope.schemas.replays import (
    LETTERS,
    RUN_ID,
    Acceptance,
    DeadLetterRecord,
    Discarded,
    Ending,
    Progress,
    Run,
)
from layerscope.stores import blobs, datasets, dead_letters, product_store
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.replays import runs

T = TypeVar("T", bound=StoredJson)
Inspect = Callable[[ObjectStore, Object], Iterator["Damage"]]

REPAIR: Final = "repair makes it again within the hour"
_PART: Final = re.compile(r"[^/]+/([0-9a-f]{64})\.npz")
_BLOB: Final = re.compile(rf"{keys.BLOBS}([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not what its name or its schema says; `mended_by` says who replaces it."""

    bucket: str
    key: str
    fault: str
    mended_by: str = REPAIR


def damaged(store: ObjectStore) -> Iterator[Damage]:
    """Read all that the system has stored, and yield what is damaged.

    A blob that is something else is emptied where the keys allow it, so that repair sees it and makes it again.

    Raises:
        Unavailable: the store does not answer.
    """
    for one in store.list(keys.DATASETS):
        yield from _of_dataset(store, one)
    for prefix, inspect in INSPECTED.items():
        for one in store.list(keys.PRODUCTS, prefix):
            yield from inspect(store, one)


def _of_dataset(store: ObjectStore, one: Object) -> Iterator[Damage]:
    name, again = one.key.partition("/")[0], "layerscope datasets add, with the same arrays"
    part = _PART.fullmatch(one.key)
    if part and (fault := _fault(store, keys.DATASETS, one, part[1])):
        yield Damage(keys.DATASETS, one.key, fault, again)
    if one.key == keys.dataset_description(name) and datasets.describe(store, name) is None:
        yield Damage(keys.DATASETS, one.key, "cannot be read", again)


def _of_json(
    store: ObjectStore, one: Object, kind: type[T], again: str, belongs: Callable[[T], bool] = lambda _: True
) -> Iterator[Damage]:
    try:
        found = kind.from_bytes(store.get(keys.PRODUCTS, one.key))
    except NotFound:
        return
    except ValueError:
        yield Damage(keys.PRODUCTS, one.key, f"is no {kind.__name__}" if one.size else "is empty", again)
    except Unavailable as error:
        yield Damage(keys.PRODUCTS, one.key, str(error), again)
    else:
        if not belongs(found):
            yield Damage(keys.PRODUCTS, one.key, f"is the {kind.__name__} of something else", again)


def _of_outcome(store: ObjectStore, one: Object) -> Iterator[Damage]:
    yield from _at(store, one, one.key, REPAIR)


def _of_beside(store: ObjectStore, one: Object) -> Iterator[Damage]:
    place = one.key.removeprefix(keys.BESIDE).partition("/")[2]
    yield from _at(store, one, place, "layerscope replay run --force, with the selection of its run, makes it again")


def _at(store: ObjectStore, one: Object, place: str, again: str) -> Iterator[Damage]:
    """Look at an outcome that lies at its place, or is to take that."""
    kind = _kind(place)
    yield from _of_json(
        store, one, kind, again, lambda found: not isinstance(found, Manifest) or product_store.belongs(found, place)
    )


def _of_run(store: ObjectStore, one: Object) -> Iterator[Damage]:
    name, _, part = one.key.removeprefix(keys.REPLAYS).removesuffix(".json").rpartition("/")
    again = "nothing makes it again: remove it, and start the run again where it is still wanted"
    if re.fullmatch(RUN_ID, name) is None:
        yield Damage(keys.PRODUCTS, one.key, "is of no run", "remove it")
    elif part == runs.PLAN:
        yield from _of_json(store, one, Run, again, lambda found: found.id == name)
    elif part == runs.PROGRESS:
        again = "its run writes it again as it goes on; of one that has ended it is lost, and may be removed"
        yield from _of_json(store, one, Progress, again, lambda found: _is_progress_of(_plan(store, name), found))
    elif part in _PARTS:
        yield from _of_json(store, one, _PARTS[part], again)


def _plan(store: ObjectStore, name: str) -> Run | None:
    try:
        return runs.run(store, name)
    except Unavailable:
        return None  # which is said of the plan itself


def _is_progress_of(run: Run | None, found: Progress) -> bool:
    return set(found.states) <= LETTERS and (run is None or len(run.entries) == len(found.states))


def _of_letter(store: ObjectStore, one: Object) -> Iterator[Damage]:
    if one.key.endswith(dead_letters.DISCARDED):
        yield from _of_json(store, one, Discarded, "layerscope dead-letters discard, with the same letter")
        return
    again = "nothing makes it again: remove it; what it was about is asked for while it is missing"
    yield from _of_json(store, one, DeadLetterRecord, again, lambda found: dead_letters.belongs(found, one.key))


def _of_health(store: ObjectStore, one: Object) -> Iterator[Damage]:
    yield from _of_json(store, one, RepairHealth, "replay writes it again after its next round")


def _of_notification(store: ObjectStore, one: Object) -> Iterator[Damage]:
    yield from _of_json(store, one, Notification, "notify claims it anew if its event comes again")


def _of_blob(store: ObjectStore, one: Object) -> Iterator[Damage]:
    digest = _BLOB.fullmatch(one.key)
    if digest and (fault := _fault(store, keys.PRODUCTS, one, digest[1])):
        try:
            blobs.set_aside(store, digest[1])
        except Unavailable as error:
            fault = f"{fault}, and stays: {error}"
        yield Damage(keys.PRODUCTS, one.key, fault)


def _kind(key: str) -> type[StoredJson]:
    if key.endswith(".failed.json"):
        return Failure
    if key.startswith(keys.REFUSED_KEYS):
        return RefusedKey
    return UploadRecord if key.startswith(keys.UPLOADS) else Manifest


class _Wish(StoredJson):
    at: datetime


_PARTS: Final[Mapping[str, type[StoredJson]]] = {
    runs.END: Ending,
    runs.ACCEPTED: Acceptance,
    runs.CANCEL: _Wish,
    runs.ACCEPT: _Wish,
}


def _fault(store: ObjectStore, bucket: str, one: Object, digest: str) -> str | None:
    """Return what is wrong with an object that is called by its SHA-256; None where nothing is."""
    with tempfile.TemporaryDirectory(prefix="layerscope-inspected-") as folder:
        path = Path(folder) / "content"
        try:
            store.download(bucket, one.key, path)
        except NotFound:
            return None
        except Unavailable as error:
            return str(error)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == digest else f"has the SHA-256 {found[:12]}…"


INSPECTED: Final[Mapping[str, Inspect]] = {
    keys.UPLOADS: _of_outcome,
    keys.MANIFESTS: _of_outcome,
    keys.BLOBS: _of_blob,
    keys.BESIDE: _of_beside,
    keys.REPLAYS: _of_run,
    keys.DEAD_LETTERS: _of_letter,
    keys.REPAIR_HEALTH: _of_health,
    keys.NOTIFICATIONS: _of_notification,
}
"""Who looks at what lies under a prefix of the bucket of products."""
