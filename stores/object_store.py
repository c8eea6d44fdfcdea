"""Where all bytes lie: three buckets behind one small interface, which all but its two adapters see alone.

The adapters are `s3_store` and `directory_store`; one contract suite holds for both. An ETag
says which content a key has, without quotes. Keys are 1 to 1,024 bytes of UTF-8, and sort by them.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, Self

from layerscope.schemas.errors import Refused

KEY_BYTES: Final = 1_024
CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Object:
    """What a store says of an object: its key, the ETag of its content, bytes, time of writing in UTC, S3's version.

    `metadata` are the user's own, by their names in small letters; lists leave them out, as S3's do.
    """

    key: str
    etag: str
    size: int
    modified: datetime
    version_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """Objects in buckets; each is there in whole or not at all, and a later put replaces it.

    Each method raises `Unavailable` where the store does not answer, refuses the credentials or has no such bucket,
    and `ValueError` for a key that it cannot have.
    """

    def get(self, bucket: str, key: str, *, etag: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        """Return an object's bytes, or only those from the first of `span` to before its second.

        Raises:
            NotFound: there is no such object.
            Changed: it is no longer the one with this ETag.
        """

    def download(
        self, bucket: str, key: str, path: Path, *, etag: str | None = None, limit: int | None = None
    ) -> Object:
        """Stream an object into a file, which is replaced once all of it is there.

        Raises:
            NotFound, Changed: as for `get`.
            Refused: it has more than `limit` bytes (code `too-large`).
        """

    def put(
        self,
        bucket: str,
        key: str,
        content: bytes | Path,
        *,
        media_type: str = "application/octet-stream",
        only_if_absent: bool = False,
        replaces: str | None = None,
    ) -> bool:
        """Store bytes or a file's bytes; return False where `only_if_absent` found an object there and left it.

        That may be our own, where the answer to a first try was lost: of many who put, one at most has True.

        Args:
            replaces: the ETag of the object that may be replaced; of many who name it, one at most succeeds.

        Raises:
            Changed: what is there has another ETag than `replaces`, or there is nothing.
        """

    def head(self, bucket: str, key: str) -> Object | None:
        """Describe an object; None where there is none."""

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        """Yield the objects whose keys begin with `prefix` and sort after `after`, by key."""

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object, if it is there."""

    def link(self, bucket: str, key: str, *, media_type: str) -> str | None:
        """Return a URL at which whoever has it can read an object for some minutes; None: the store has none to give."""

    def ensure_buckets(self) -> None:
        """Make those of the three buckets that are missing."""

    def bucket_name(self, bucket: str) -> str:
        """Return what the store itself calls one of the three, as in its notifications."""


def check_key(key: str) -> str:
    """Return `key`; raise ValueError where no store can have it."""
    if not 0 < (length := len(key.encode())) <= KEY_BYTES:
        raise ValueError(f"a key has 1 to {KEY_BYTES} bytes of UTF-8, and this one {length}")
    return key


def check_size(key: str, size: int, limit: int | None) -> None:
    """Raise Refused where an object has more bytes than the limit."""
    if limit is not None and size > limit:
        raise Refused("too-large", f"{key} has {size:,} bytes; the limit is {limit:,}.")


class Body:
    """The bytes to be stored, up to their present number: a file may still grow, and a stored object has one size."""

    def __init__(self, content: bytes | Path) -> None:
        self._file = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        self.size = self._file.seek(0, io.SEEK_END)
        self.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        return self._file.read(min(size, self.size - self._file.tell()))

    def tell(self) -> int:
        """Return how far has been read."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        """Read on from a position."""
        return self._file.seek(position)


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that appears, or replaces another, once all of it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
