"""What only a directory has: names of files for keys, and what others leave in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import MODELS
from layerscope.stores.directory_store import ABANDONED_SECONDS, INCOMING, DirectoryStore, key_of, name_of

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)
awkward = st.text(st.sampled_from("a./%+\x00~é"), min_size=1, max_size=450)


@given(texts | awkward)
@example("a//b")
@example("/")
@example("a/")
@example("." * 1024)
@example("../../etc/passwd")
@example("\x00" * 1024)
@example("é" * 199 + ".pth")
def test_every_key_has_a_name_that_leads_back_to_it(key: str) -> None:
    path = name_of(key)
    assert key_of(str(path)) == key
    assert not path.is_absolute()
    for name in path.parts:
        assert len(name) <= 255 and name.isascii() and name.isprintable() and not name.startswith(".")


@given(texts | awkward, texts | awkward)
@example("a", "a/b")
@example("a/", "a//b")
@example("v1.0", "v1.0/x")
@example("a" * 200, "a" * 201)
@example("a" * 200, "a" * 200 + "/b")
def test_no_key_stands_in_the_way_of_another(one: str, other: str) -> None:
    a, b = name_of(one), name_of(other)
    assert (a == b) == (one == other)
    assert a not in b.parents and b not in a.parents


@settings(max_examples=30, deadline=None)
@given(keys=st.sets(texts | awkward, max_size=12), prefix=awkward.map(lambda text: text[:2]))
def test_keys_of_any_form_are_listed_in_order(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str
) -> None:
    possible = {key for key in keys if len(key.encode()) <= 1_024}
    store = DirectoryStore(tmp_path_factory.mktemp("store"))
    store.ensure_buckets()
    for key in possible:
        store.put(MODELS, key, key.encode())
    assert [one.key for one in store.list(MODELS)] == sorted(possible, key=str.encode)
    assert [one.key for one in store.list(MODELS, prefix)] == sorted(key for key in possible if key.startswith(prefix))
    assert all(store.get(MODELS, key) == key.encode() for key in possible)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store in `tmp_path`."""
    one = DirectoryStore(tmp_path)
    one.ensure_buckets()
    return one


def test_a_model_is_found_under_its_own_name(store: DirectoryStore, tmp_path: Path) -> None:
    store.put(MODELS, "mnist/lenet/3.pth", b"weights")
    assert (tmp_path / "models/mnist/lenet/3.pth").read_bytes() == b"weights"


def test_hidden_files_of_others_are_not_objects(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "models/.DS_Store").write_bytes(b"")
    assert list(store.list(MODELS)) == []


def test_what_killed_writers_left_is_no_object_and_goes_after_a_day(store: DirectoryStore, tmp_path: Path) -> None:
    old, new = tmp_path / INCOMING / "old", tmp_path / INCOMING / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - ABANDONED_SECONDS - 1,) * 2)
    store.ensure_buckets()
    assert list((tmp_path / INCOMING).iterdir()) == [new]
    assert list(store.list(MODELS)) == []


def test_the_etag_is_seen_to_change_when_a_file_is_replaced_by_hand(store: DirectoryStore, tmp_path: Path) -> None:
    path = tmp_path / "models/digits/m/1.pth"
    etags = set()
    for turn, content in enumerate((b"first", b"other")):
        store.put(MODELS, "digits/m/1.pth", b"first")
        path.write_bytes(content)
        os.utime(path, (1_000_000 + turn,) * 2)  # long ago: an ETag that may be remembered
        for _ in range(2):
            (one,) = store.list(MODELS)
            etags.add(one.etag)
    assert len(etags) == 2


def test_the_etag_of_a_young_file_is_not_taken_from_memory(store: DirectoryStore, tmp_path: Path) -> None:
    path = tmp_path / "models/digits/m/1.pth"
    store.put(MODELS, "digits/m/1.pth", b"first")
    now, etags = time.time_ns(), set()
    for content in (b"first", b"other"):
        path.write_bytes(content)
        os.utime(path, ns=(now, now))  # as if a number of a removed file were used again within one tick of the clock
        (one,) = store.list(MODELS)
        etags.add(one.etag)
    assert len(etags) == 2


def test_a_directory_that_cannot_be_written_is_unavailable(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / INCOMING).rmdir()
    (tmp_path / INCOMING).write_bytes(b"")  # in the way; permissions would not stop root
    with pytest.raises(Unavailable):
        store.put(MODELS, "key", b"1")
    assert store.head(MODELS, "key") is None
