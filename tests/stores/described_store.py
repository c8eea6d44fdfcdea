"""A directory whose objects have metadata, as those of an S3 server may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import Object


class DescribedStore(DirectoryStore):
    """`described` are the metadata of objects, by key."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.described: dict[str, dict[str, str]] = {}

    def head(self, bucket: str, key: str) -> Object | None:
        found = super().head(bucket, key)
        return replace(found, metadata=self.described.get(key, {})) if found else None
