"""Stored versions that may lend their layers to a state dict, which has none: those of its model, or the one that is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.functions.runtime.model_ranges import (
    LENGTH,
    beginning_of,
    bring_beginning,
    read_range,
    write_with_holes,
)
from layerscope.models import file_kinds
from layerscope.schemas import keys
from layerscope.schemas.errors import NotFound, Refused, Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import UploadRecord
from layerscope.stores import blobs, damage, uploads
from layerscope.stores.blobs import Damaged
from layerscope.stores.object_store import ObjectStore

MOST: Final = 8
"""Versions with different content that are asked, the latest first."""
LOOKED_AT: Final = 64
"""Records among which they are looked for."""
MOST_BYTES: Final = 64 * 2**20
"""Of a lender's tensors that no state dict has."""
_WITHOUT_LAYERS: Final = frozenset({"torch-zip", "torch-legacy", "safetensors-plain"})
_DAMAGE: Final = (Damaged, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Lender:
    """A stored version, and a file that has its layers, and of its tensors those that no state dict has."""

    subject: str
    file: Path


def named(architecture: str | None) -> Identity | None:
    """Return the stored version that a user names where an architecture could stand: DATASET/MODEL/VERSION."""
    if architecture is None or architecture.count("/") != 2:
        return None
    try:
        return Identity.parse(architecture)
    except ValueError:
        return None


def lenders(
    store: ObjectStore, upload: Path, identity: Identity, like: Identity | None, folder: Path
) -> tuple[Lender, ...]:
    """Bring the layers of stored versions into a folder, if the upload is of a kind that has none.

    Raises:
        Refused: `no-such-model`, the version that is named is not there, or was refused.
        Unavailable: the store does not answer, or the version that is named is still being read, or made again.
    """
    if file_kinds.sniff(upload) not in _WITHOUT_LAYERS:
        return ()
    if like is not None:
        return (_named(store, like, folder),)
    found: dict[str, Lender] = {}
    for record in _records(store, identity):
        if record.content is not None and record.content not in found:
            try:
                found[record.content] = Lender(record.identity.subject, _brought(store, record.content, folder))
            except (
                *_DAMAGE,
                NotFound,
                Refused,
            ):  # it is damaged, which repair and doctor tell; others may have the same layers
                continue
        if len(found) == MOST:
            break
    return tuple(found.values())


def _named(store: ObjectStore, like: Identity, folder: Path) -> Lender:
    hint = "name a version that `layerscope show` lists, or leave it out: versions of the same model are tried first"
    current = uploads.current(store, like)
    if current is None:
        raise Refused("no-such-model", f"{like.subject} is not stored, so it has no layers to lend.", hint)
    record = uploads.record(store, current)
    if record is None:
        raise Unavailable(f"{like.subject} is still being read")
    if record.content is None:
        raise Refused("no-such-model", f"{like.subject} was refused itself, so it has no layers to lend.", hint)
    try:
        return Lender(like.subject, _brought(store, record.content, folder))
    except NotFound as error:
        raise Unavailable(f"{like.subject} is lost; it is made again") from error
    except _DAMAGE as error:
        blobs.set_aside(store, record.content)
        raise Unavailable(f"{like.subject} is damaged; it is made again") from error


def _records(store: ObjectStore, identity: Identity) -> Iterator[UploadRecord]:
    """Yield what other versions of a model came to, the latest first."""
    listed = [
        one
        for one in store.list(keys.PRODUCTS, f"{keys.UPLOADS}{identity.dataset}/{identity.model}/")
        if not one.key.startswith(keys.uploads_of(identity)) and not one.key.endswith(".failed.json")
    ]
    for one in sorted(listed, key=lambda one: (one.modified, one.key), reverse=True)[:LOOKED_AT]:
        record = damage.read_json(store, keys.PRODUCTS, one.key, UploadRecord)
        if record is not None:
            yield record


def _brought(store: ObjectStore, content: str, folder: Path) -> Path:
    """Bring a model's header, and by ranges the tensors that no state dict of it has."""
    path = folder / content
    bring_beginning(store, content, path)
    beginning = beginning_of(path)
    header = json.loads(beginning[LENGTH:])
    weights = json.loads(header["__metadata__"][file_kinds.KEY])["tensors"]
    spans = [
        tuple(len(beginning) + place for place in header[weight["name"]]["data_offsets"])
        for weight in weights
        if weight.get("kind") == "constant" and weight["name"] in header
    ]
    if sum(end - begin for begin, end in spans) > MOST_BYTES:
        raise Refused(
            "unlike-lender",
            f"The model has {sum(end - begin for begin, end in spans):,} bytes of tensors that no state dict has.",
            "upload this version as that one was, from Python: layerscope.upload(model, 'DATASET/MODEL/VERSION')",
        )
    parts = [(begin, read_range(store, content, (begin, end))) for begin, end in spans if end > begin]
    write_with_holes(path, path.stat().st_size, [(0, beginning), *parts])
    return path
