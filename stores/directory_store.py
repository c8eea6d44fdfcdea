"""The object store of the embedded system: a directory, with one folder for each bucket.

A key's segments become folders and its last one a file, percent-encoded where a file system would take offence, so
that `mnist/lenet/3.pth` is found under that very name and every key has a name of its own (upper and lower case may
not be two on a file system that ignores case). Objects appear by link or rename, so a kill leaves no half object.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.keys import BUCKETS
from layerscope.stores.object_store import CHUNK, Body, Object, check_key, check_size, write_whole

INCOMING: Final = ".incoming"
ABANDONED_SECONDS: Final = 24 * 3600
SETTLED_NS: Final = 2_000_000_000
NAME_CHARACTERS: Final = 200
CONTINUES: Final = "%+"
EMPTY: Final = "%%"


class DirectoryStore:
    """Buckets that are folders of `root`; safe in threads and between processes of one machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._etags: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def get(self, bucket: str, key: str, *, etag: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        with self._opened(bucket, key, etag) as file:
            if span is None:
                return file.read()
            file.seek(span[0])
            return file.read(span[1] - span[0])

    def download(
        self, bucket: str, key: str, path: Path, *, etag: str | None = None, limit: int | None = None
    ) -> Object:
        with self._opened(bucket, key, etag) as file:
            found = self._described(file, key)
            check_size(key, found.size, limit)
            write_whole(path, iter(lambda: file.read(CHUNK), b""))
            return found

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
        path = self._bucket(bucket) / name_of(check_key(key))
        if only_if_absent and path.exists():
            return False
        incoming = self._root / INCOMING / secrets.token_hex(16)
        with Body(content) as body, _faults():
            try:
                _write_durably(incoming, body)
                path.parent.mkdir(parents=True, exist_ok=True)
                if only_if_absent:
                    return _link(incoming, path)
                with _writing(self._root / INCOMING, alone=replaces is not None):
                    self._check_etag(bucket, key, replaces)
                    incoming.replace(path)
                _sync(path.parent)
                return True
            finally:
                incoming.unlink(missing_ok=True)

    def head(self, bucket: str, key: str) -> Object | None:
        try:
            with self._opened(bucket, key) as file:
                return self._described(file, key)
        except NotFound:
            return None

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        folder = self._bucket(bucket)
        start = folder.joinpath(*(piece for segment in prefix.split("/")[:-1] for piece in _folders(segment)))
        walk = ((at[len(str(folder)) :], names) for at, _, names in os.walk(start))
        found = (key_of(f"{at}/{name}") for at, names in walk for name in names if not name.startswith("."))
        for key in sorted(key for key in found if key.startswith(prefix) and key > after):
            if (one := self.head(bucket, key)) is not None:  # or it was removed meanwhile
                yield one

    def remove(self, bucket: str, key: str) -> None:
        with _faults():
            (self._bucket(bucket) / name_of(check_key(key))).unlink(missing_ok=True)

    def link(self, bucket: str, key: str, *, media_type: str) -> str | None:
        return None

    def bucket_name(self, bucket: str) -> str:
        return bucket

    def ensure_buckets(self) -> None:
        with _faults():
            for folder in (INCOMING, *BUCKETS):
                (self._root / folder).mkdir(parents=True, exist_ok=True)
            for left in (self._root / INCOMING).iterdir():  # by writers that were killed, or are at work
                with suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                        left.unlink()

    def _bucket(self, bucket: str) -> Path:
        folder = self._root / bucket
        if bucket not in BUCKETS or not folder.is_dir():
            raise Unavailable(f"the object store has no bucket {bucket}: layerscope init makes it")
        return folder

    def _check_etag(self, bucket: str, key: str, etag: str | None) -> None:
        if etag is not None and ((there := self.head(bucket, key)) is None or there.etag != etag):
            raise Changed(f"the object {key} in the bucket {bucket} is no longer the one to be replaced")

    @contextmanager
    def _opened(self, bucket: str, key: str, etag: str | None = None) -> Iterator[io.BufferedReader]:
        path = self._bucket(bucket) / name_of(check_key(key))
        with _faults():
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise NotFound(f"there is no object {key} in the bucket {bucket}") from None
        with file:
            if etag and self._described(file, key).etag != etag:
                raise Changed(f"the object {key} in the bucket {bucket} is no longer the one asked for")
            yield file

    def _described(self, file: io.BufferedReader, key: str) -> Object:
        status, path = os.fstat(file.fileno()), Path(file.name)
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        known, etag = self._etags.get(path, ((), ""))
        if known != seen:
            etag = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            file.seek(0)
            # A file so young might be replaced by another of the same size, time and inode number.
            if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
                self._etags[path] = seen, etag
        return Object(key, etag, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def name_of(key: str) -> Path:
    """Return the relative path under which a key's object lies.

    The last segment keeps its dots, or ends in `%` where it has none; folders have no plain dot. So `a` and `a/b` both
    fit, and nothing is called `..`. What is longer than a file's name may be continues in a folder `...%+`.
    """
    *folders, last = key.split("/")
    *begun, end = _pieces(quote(last, safe=""))
    names = [name for segment in folders for name in _folders(segment)] + [f"{piece}{CONTINUES}" for piece in begun]
    return Path(*names, end if "." in end else f"{end}%")


def key_of(name: str) -> str:
    """Return the key whose object lies under the relative path `name`: the inverse of `name_of`."""
    *folders, last = name.strip("/").split("/")
    plain = ("" if folder == EMPTY else folder for folder in folders)
    joined = "".join(one.removesuffix(CONTINUES) if one.endswith(CONTINUES) else f"{one}/" for one in plain)
    return unquote(joined + last.removesuffix("%"))


def _folders(segment: str) -> list[str]:
    *begun, end = _pieces(quote(segment, safe="").replace(".", "%2E"))
    return [*(f"{piece}{CONTINUES}" for piece in begun), end or EMPTY]


def _pieces(text: str) -> list[str]:
    pieces = [text[at : at + NAME_CHARACTERS] for at in range(0, len(text), NAME_CHARACTERS)] or [""]
    return [f"%2E{piece[1:]}" if piece.startswith(".") else piece for piece in pieces]  # names with a dot are hidden


def _write_durably(path: Path, body: Body) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        for chunk in iter(lambda: body.read(CHUNK), b""):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _writing(folder: Path, *, alone: bool) -> Iterator[None]:
    """Put nothing in another's place meanwhile, if `alone`; between all processes of this machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _link(incoming: Path, path: Path) -> bool:
    try:
        path.hardlink_to(incoming)
    except FileExistsError:
        return False
    _sync(path.parent)
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the object store's directory cannot be used: {error.strerror}") from error
