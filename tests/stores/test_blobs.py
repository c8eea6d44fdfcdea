"""Blobs are checked by whoever reads them, and a bad one gives way to whoever writes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.schemas import keys
from layerscope.schemas.digests import sha256
from layerscope.schemas.manifests import File
from layerscope.stores import blobs
from layerscope.stores.blobs import Damaged
from tests.stores.memory_store import MemoryStore

CONTENT = b"the weights of a network"
DIGEST = sha256(CONTENT)
KEY = keys.blob(DIGEST)
BAD = [b"", CONTENT[:-1], b"X" * len(CONTENT), CONTENT + b"X"]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("from_file", [False, True])
def test_putting_a_blob_replaces_a_bad_one(store: MemoryStore, tmp_path: Path, bad: bytes, from_file: bool) -> None:
    store.put(keys.PRODUCTS, KEY, bad)
    (tmp_path / "file").write_bytes(CONTENT)
    blobs.put(store, DIGEST, tmp_path / "file" if from_file else CONTENT)
    assert blobs.get(store, DIGEST) == CONTENT


def test_a_good_blob_is_not_written_again(store: MemoryStore) -> None:
    blobs.put(store, DIGEST, CONTENT)
    there = store.head(keys.PRODUCTS, KEY)
    blobs.put(store, DIGEST, CONTENT)
    assert store.head(keys.PRODUCTS, KEY) == there


def test_a_blob_that_the_store_cannot_give_is_written_again(store: MemoryStore) -> None:
    blobs.put(store, DIGEST, CONTENT)
    there = store.head(keys.PRODUCTS, KEY)
    store.unreadable.add(KEY)
    blobs.put(store, DIGEST, CONTENT)
    assert store.head(keys.PRODUCTS, KEY) != there


@pytest.mark.parametrize("bad", [*BAD, None])
def test_a_bad_blob_is_never_handed_on(store: MemoryStore, tmp_path: Path, bad: bytes | None) -> None:
    if bad is not None:
        store.put(keys.PRODUCTS, KEY, bad)
    with pytest.raises(Damaged):
        blobs.get(store, DIGEST)
    with pytest.raises(Damaged):
        blobs.download(store, DIGEST, tmp_path / "models" / "file")
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_a_list_shows_a_bad_blob_once_it_is_set_aside(store: MemoryStore) -> None:
    file = [File(name="f", sha256=DIGEST, size=len(CONTENT), type="")]
    store.put(keys.PRODUCTS, KEY, b"X" * len(CONTENT))
    assert blobs.are_stored(store, file)
    blobs.set_aside(store, DIGEST)
    assert not blobs.are_stored(store, file)
    blobs.put(store, DIGEST, CONTENT)
    blobs.set_aside(store, DIGEST)
    assert blobs.get(store, DIGEST) == CONTENT


@pytest.mark.parametrize("bad", BAD)
def test_a_local_copy_that_is_no_longer_what_it_was_is_brought_again(
    store: MemoryStore, tmp_path: Path, bad: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.put(store, DIGEST, CONTENT)
    path = blobs.local_copy(store, DIGEST, tmp_path / "models" / DIGEST)
    path.write_bytes(bad)  # while this process runs
    assert blobs.local_copy(store, DIGEST, path).read_bytes() == CONTENT
    path.write_bytes(bad)
    monkeypatch.setattr(blobs, "_checked", {})  # before it starts
    assert not blobs.is_copy(DIGEST, path)
    assert blobs.local_copy(store, DIGEST, path).read_bytes() == CONTENT


def test_a_local_copy_is_read_once_and_a_lost_blob_is_not_missed_while_there_is_one(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.put(store, DIGEST, CONTENT)
    path = blobs.local_copy(store, DIGEST, tmp_path / DIGEST)
    monkeypatch.setattr(blobs, "_digest", lambda _: pytest.fail("it was read again"))
    store.put(keys.PRODUCTS, KEY, b"")
    assert blobs.local_copy(store, DIGEST, path).read_bytes() == CONTENT
