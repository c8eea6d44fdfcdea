"""Buckets in this process's memory, which lists as an S3 server does: by pages, in order, without the rest."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.keys import BUCKETS
from layerscope.stores.object_store import Object, check_size, write_whole

PAGE = 1_000


class MemoryStore:
    """Counts what is asked of it in `requests`; may know metadata, be down (at once, or after some `answers`), lose bytes."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, tuple[Object, bytes]]] = {bucket: {} for bucket in BUCKETS}
        self._keys: dict[str, list[str]] = {bucket: [] for bucket in BUCKETS}
        self.requests: Counter[str] = Counter()
        self.unreadable: set[str] = set()
        self.is_down = False
        self.answers = math.inf
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def get(self, bucket: str, key: str, *, etag: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        self._asked("get")
        if key in self.unreadable:
            raise Unavailable("the object store answers SlowDownRead")
        found = self._objects[bucket].get(key)
        if found is None:
            raise NotFound(key)
        if etag and found[0].etag != etag:
            raise Changed(key)
        return found[1] if span is None else found[1][span[0] : span[1]]

    def download(
        self, bucket: str, key: str, path: Path, *, etag: str | None = None, limit: int | None = None
    ) -> Object:
        content = self.get(bucket, key, etag=etag)
        check_size(key, len(content), limit)
        write_whole(path, [content])
        return self._objects[bucket][key][0]

    def put(
        self,
        bucket: str,
        key: str,
        content: bytes | Path,
        *,
        media_type: str = "application/octet-stream",
        only_if_absent: bool = False,
        replaces: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        self._asked("put")
        there = self._objects[bucket].get(key)
        if only_if_absent and there is not None:
            return False
        if replaces is not None and (there is None or there[0].etag != replaces):
            raise Changed(key)
        stored = content.read_bytes() if isinstance(content, Path) else content
        etag = hashlib.md5(stored, usedforsecurity=False).hexdigest()
        if there is None:
            insort(self._keys[bucket], key)
        described = Object(key, etag, len(stored), self.clock(), metadata=dict(metadata or {}))
        self._objects[bucket][key] = (described, stored)
        return True

    def head(self, bucket: str, key: str) -> Object | None:
        self._asked("head")
        found = self._objects[bucket].get(key)
        return found[0] if found else None

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        keys = self._keys[bucket]
        at = max(bisect_right(keys, after), bisect_right(keys, prefix) - (prefix in self._objects[bucket]))
        while True:
            self._asked("list")
            page = keys[at : at + PAGE]
            for key in page:
                if not key.startswith(prefix):
                    return
                one = self._objects[bucket][key][0]
                yield Object(one.key, one.etag, one.size, one.modified)
            if len(page) < PAGE:
                return
            at += PAGE

    def remove(self, bucket: str, key: str) -> None:
        if self._objects[bucket].pop(key, None) is not None:
            self._keys[bucket].remove(key)

    def link(self, bucket: str, key: str, *, media_type: str) -> str | None:
        return None

    def ensure_buckets(self) -> None:
        """They are there."""

    def bucket_name(self, bucket: str) -> str:
        return bucket

    def _asked(self, what: str) -> None:
        self.answers -= 1
        if self.is_down or self.answers < 0:
            raise Unavailable("the object store does not answer")
        self.requests[what] += 1
