"""What was read of the buckets and need not read again: all of it by key and ETag, so that nothing goes stale.

Of each object only what decides is kept, some 3 KB a model version.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from layerscope.schemas import keys
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure, Manifest, UploadRecord
from layerscope.stores import datasets
from layerscope.stores.object_store import ObjectStore

_FILE = struct.Struct(">32sq")
ANY_SIZE = -1


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a record of an upload decides; without `content` it was refused. `files`: its blobs, as `packed`."""

    content: str | None
    sidecars: Mapping[str, str]
    files: bytes

    @classmethod
    def of(cls, record: UploadRecord) -> Admitted:
        """Keep what decides."""
        found = {"checkpoint": record.training} if record.training else {}
        files = [(record.content, record.content_size)] if record.content else []
        files += [(record.training, ANY_SIZE)] if record.training else []
        return cls(record.content, record.sidecars | found, packed(files))


@dataclass(frozen=True, slots=True)
class Made:
    """What a manifest decides: that the product is complete, or refused; and its files, as `packed`."""

    is_refused: bool
    files: bytes

    @classmethod
    def of(cls, manifest: Manifest) -> Made:
        """Keep what decides."""
        return cls(manifest.state == "refused", packed([(one.sha256, one.size) for one in manifest.files]))


@dataclass(slots=True)
class KnownModel:
    """What is known of one model version; each is next to the ETag that it was read at, and None if unreadable."""

    given: tuple[tuple[str, str, datetime], Mapping[str, str]] | None = None
    record: tuple[str, Admitted | None] = ("", None)
    manifests: dict[str, tuple[str, Made | None]] = field(default_factory=dict)
    failures: dict[str, tuple[str, Failure | None]] = field(default_factory=dict)
    facts: tuple[Admitted, DatasetDescription | None] | None = None
    addresses: tuple[str, ...] = ()
    fingerprint: str = ""

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Yield the digest and size of each blob that should be there."""
        if self.record[1] is not None:
            yield from _FILE.iter_unpack(self.record[1].files)
        for _, made in self.manifests.values():
            if made is not None:
                yield from _FILE.iter_unpack(made.files)


@dataclass(slots=True)
class KnownOutcomes:
    """What is known of all; `lost` has the digests of blobs that the last list of their prefix did not show."""

    models: dict[Identity, KnownModel] = field(default_factory=dict)
    datasets: dict[str, tuple[str, DatasetDescription | None]] = field(default_factory=dict)
    refused_keys: dict[str, tuple[str, bool]] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)

    def refresh_datasets(self, store: ObjectStore) -> set[str]:
        """Read the descriptions that are new; return the names of the datasets that have changed."""
        present = {
            one.key.partition("/")[0]: one.etag
            for one in store.list(keys.DATASETS)
            if one.key == keys.dataset_description(one.key.partition("/")[0])
        }
        before = self.datasets
        changed = {name for name, etag in present.items() if before.get(name, ("", None))[0] != etag}
        self.datasets = {
            name: (etag, datasets.describe(store, name)) if name in changed else before[name]
            for name, etag in present.items()
        }
        return changed | (before.keys() - present.keys())

    def of(self, identity: Identity) -> KnownModel:
        """Return what is known of a model version, which may be nothing."""
        return self.models.setdefault(identity, KnownModel())

    def has_lost(self, files: bytes) -> bool:
        """Tell whether any of these blobs is lost."""
        return bool(self.lost) and any(digest in self.lost for digest, _ in _FILE.iter_unpack(files))


def packed(files: list[tuple[str, int]]) -> bytes:
    """Return digests and sizes in 40 bytes each; ANY_SIZE: more than nothing."""
    return b"".join(_FILE.pack(bytes.fromhex(digest), size) for digest, size in files)


def unpacked(files: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the digest and the size of each."""
    return _FILE.iter_unpack(files)
