"""A directory whose buckets are called otherwise by itself, as those of a store on a cluster are."""

from __future__ import annotations

from layerscope.stores.directory_store import DirectoryStore


class NamedStore(DirectoryStore):
    """A store that calls `models` `acme-models`."""

    def bucket_name(self, bucket: str) -> str:
        return f"acme-{bucket}"
