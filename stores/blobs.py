"""Bytes by their SHA-256, in the bucket `products`: whoever reads them checks them, and whoever writes replaces bad ones."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.digests import sha256
from layerscope.schemas.errors import Changed, LayerscopeError, NotFound, Unavailable
from layerscope.schemas.manifests import File
from layerscope.stores import damage
from layerscope.stores.object_store import ObjectStore

MOST_CHECKED: Final = 10_000
_checked: Final[dict[Path, tuple[int, int, int, int]]] = {}
"""What this process knows the files to be: one that is changed has another stamp."""


class Damaged(LayerscopeError):
    """The blob of this digest is lost, or is something else; `missing` has it made again."""

    def __init__(self, digest: str, fault: str) -> None:
        super().__init__(f"the stored bytes {digest[:12]}… {fault}")
        self.sha256 = digest
        self.fault = fault


def put(store: ObjectStore, digest: str, content: bytes | Path, media_type: str = "application/octet-stream") -> None:
    """Store bytes, or a file's, under their SHA-256; what lies there and is something else is replaced."""
    key = keys.blob(digest)
    if store.put(keys.PRODUCTS, key, content, media_type=media_type, only_if_absent=True):
        return
    if not _holds(store, digest, content):
        damage.report(keys.PRODUCTS, key, "is not what its name says, and is replaced")
        store.put(keys.PRODUCTS, key, content, media_type=media_type)


def get(store: ObjectStore, digest: str) -> bytes:
    """Return the bytes of this SHA-256.

    Raises:
        Damaged: they are not there.
    """
    try:
        content = store.get(keys.PRODUCTS, keys.blob(digest))
    except NotFound as error:
        raise _damaged(digest, "are lost") from error
    if sha256(content) != digest:
        raise _damaged(digest, "are damaged")
    return content


def download(store: ObjectStore, digest: str, path: Path) -> None:
    """Bring the bytes of this SHA-256 into a file, which appears when they are there and are what they should be.

    Raises:
        Damaged: they are not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".blob-") as folder:
        arriving = Path(folder) / "content"
        try:
            store.download(keys.PRODUCTS, keys.blob(digest), arriving)
        except NotFound as error:
            raise _damaged(digest, "are lost") from error
        if _digest(arriving) != digest:
            raise _damaged(digest, "are damaged")
        arriving.replace(path)


def local_copy(store: ObjectStore, digest: str, path: Path) -> Path:
    """Return a file with the bytes of this SHA-256: the one that is there, if it still has them, or brought now.

    Raises:
        Damaged: they are not in the store.
    """
    if not is_copy(digest, path):
        download(store, digest, path)
        _remember(path)
    return path


def is_copy(digest: str, path: Path) -> bool:
    """Tell whether a file has the bytes of this SHA-256: read before its first use in this process, and when it has changed.

    A node that lost power, or whose disk is bad, has files that are no longer what they were when they came.
    """
    try:
        if _checked.get(path) == _stamp(path):
            return True
        if _digest(path) != digest:
            return False
    except FileNotFoundError:
        return False
    _remember(path)
    return True


def _remember(path: Path) -> None:
    if len(_checked) >= MOST_CHECKED:
        _checked.clear()
    _checked[path] = _stamp(path)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def are_stored(store: ObjectStore, files: Iterable[File]) -> bool:
    """Tell whether these files are there with their sizes, as a list of the bucket would show them."""
    for file in files:
        found = store.head(keys.PRODUCTS, keys.blob(file.sha256))
        if found is None or found.size != file.size:
            damage.report(keys.PRODUCTS, keys.blob(file.sha256), "is lost, or cut short")
            return False
    return True


def set_aside(store: ObjectStore, digest: str) -> None:
    """Empty a blob that is something else, so that every list shows it, and whoever makes it again replaces it."""
    key = keys.blob(digest)
    there = store.head(keys.PRODUCTS, key)
    if there is None or not there.size or _is_stored(store, digest, there.size):
        return
    try:
        store.put(keys.PRODUCTS, key, b"", replaces=there.etag)
    except Changed:
        return  # somebody has made it again


def _damaged(digest: str, fault: str) -> Damaged:
    damage.report(keys.PRODUCTS, keys.blob(digest), fault)
    return Damaged(digest, fault)


def _holds(store: ObjectStore, digest: str, content: bytes | Path) -> bool:
    """Tell whether the blob can be read and is this content."""
    if isinstance(content, Path):
        return _is_stored(store, digest, content.stat().st_size)
    try:
        return store.get(keys.PRODUCTS, keys.blob(digest)) == content  # in one request
    except (NotFound, Unavailable):
        return False


def _is_stored(store: ObjectStore, digest: str, size: int) -> bool:
    """Tell whether the blob can be read and is what its name says."""
    key = keys.blob(digest)
    try:
        there = store.head(keys.PRODUCTS, key)
        if there is None or there.size != size:
            return False
        with tempfile.TemporaryDirectory(prefix="layerscope-blob-") as folder:
            store.download(keys.PRODUCTS, key, Path(folder) / "content", etag=there.etag)
            return _digest(Path(folder) / "content") == digest
    except (
        NotFound,
        Changed,
        Unavailable,
    ):  # what cannot be read is written again, which tells whether the store is up
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
