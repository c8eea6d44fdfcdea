"""Every stored object read once and compared with its digest or its schema: `layerscope doctor --deep`."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.errors import NotFound, Unavailable
from layerscope.schemas.manifests import Failure, Manifest, RefusedKey, StoredJson, UploadRecord
from layerscope.stores import blobs, datasets, product_store
from layerscope.stores.object_store import Object, ObjectStore

_PART: Final = re.compile(r"[^/]+/([0-9a-f]{64})\.npz")
_BLOB: Final = re.compile(rf"{keys.BLOBS}([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not what its name or its schema says; `mended_by` says who replaces it."""

    bucket: str
    key: str
    fault: str
    mended_by: str = "repair makes it again within the hour"


def damaged(store: ObjectStore) -> Iterator[Damage]:
    """Read all that the system has stored, and yield what is damaged.

    A blob that is something else is emptied where the keys allow it, so that repair sees it and makes it again.

    Raises:
        Unavailable: the store does not answer.
    """
    for one in store.list(keys.DATASETS):
        yield from _of_dataset(store, one)
    for prefix in (keys.UPLOADS, keys.MANIFESTS):
        for one in store.list(keys.PRODUCTS, prefix):
            yield from _of_outcome(store, one)
    for one in store.list(keys.PRODUCTS, keys.BLOBS):
        yield from _of_blob(store, one)


def _of_dataset(store: ObjectStore, one: Object) -> Iterator[Damage]:
    name, again = one.key.partition("/")[0], "layerscope datasets add, with the same arrays"
    part = _PART.fullmatch(one.key)
    if part and (fault := _fault(store, keys.DATASETS, one, part[1])):
        yield Damage(keys.DATASETS, one.key, fault, again)
    if one.key == keys.dataset_description(name) and datasets.describe(store, name) is None:
        yield Damage(keys.DATASETS, one.key, "cannot be read", again)


def _of_outcome(store: ObjectStore, one: Object) -> Iterator[Damage]:
    try:
        found = _kind(one.key).from_bytes(store.get(keys.PRODUCTS, one.key))
    except NotFound:
        return
    except ValueError:
        yield Damage(keys.PRODUCTS, one.key, "is empty" if not one.size else f"is no {_kind(one.key).__name__}")
    except Unavailable as error:
        yield Damage(keys.PRODUCTS, one.key, str(error))
    else:
        if isinstance(found, Manifest) and not product_store.belongs(found, one.key):
            yield Damage(keys.PRODUCTS, one.key, "is the manifest of something else")


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
