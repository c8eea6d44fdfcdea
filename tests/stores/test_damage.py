"""Stored JSON that cannot be read counts as absent, is reported once, and gives way to what is made in its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from layerscope.schemas.keys import PRODUCTS
from layerscope.schemas.manifests import Refusal, RefusedKey
from layerscope.stores import damage
from layerscope.stores.directory_store import DirectoryStore

MADE = RefusedKey(key="a", refusal=Refusal(code="bad-key", message="No."))
BAD = [b"", b"{", MADE.to_bytes()[:20], b"\xff\xfe", b'{"key": 3}', b"[]", b"null"]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    one = DirectoryStore(tmp_path)
    one.ensure_buckets()
    return one


def stands(found: RefusedKey) -> bool:
    return found.key == "a"


@pytest.mark.parametrize("content", BAD)
def test_what_cannot_be_read_counts_as_absent_is_logged_and_counted_once(
    store: DirectoryStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"damaged/{content!r}"
    before = REGISTRY.get_sample_value("layerscope_unreadable_objects_total", {"bucket": PRODUCTS}) or 0
    store.put(PRODUCTS, key, content)
    for _ in range(2):
        assert damage.read_json(store, PRODUCTS, key, RefusedKey) is None
    assert REGISTRY.get_sample_value("layerscope_unreadable_objects_total", {"bucket": PRODUCTS}) == before + 1
    assert sum(key in line.getMessage() for line in caplog.records) == 1


def test_what_is_not_there_is_not_reported(store: DirectoryStore, caplog: pytest.LogCaptureFixture) -> None:
    assert damage.read_json(store, PRODUCTS, "nothing", RefusedKey) is None
    assert caplog.records == []


@pytest.mark.parametrize("content", BAD)
def test_what_cannot_be_read_is_replaced_by_what_is_made(store: DirectoryStore, content: bytes) -> None:
    store.put(PRODUCTS, "key", content)
    assert damage.settle(store, "key", MADE, stands) == MADE
    assert damage.read_json(store, PRODUCTS, "key", RefusedKey) == MADE


def test_what_stands_there_is_left_and_returned(store: DirectoryStore) -> None:
    earlier = RefusedKey(key="a", refusal=Refusal(code="other", message="Earlier."))
    store.put(PRODUCTS, "key", earlier.to_bytes())
    assert damage.settle(store, "key", MADE, stands) == earlier
    assert damage.read_json(store, PRODUCTS, "key", RefusedKey) == earlier


def test_of_several_who_replace_a_bad_one_all_return_the_same(store: DirectoryStore) -> None:
    def settle(number: int) -> RefusedKey:
        made = RefusedKey(key="a", refusal=Refusal(code=f"c{number}", message="No."))
        return damage.settle(store, "key", made, stands)

    for _ in range(10):
        store.put(PRODUCTS, "key", b"{")
        with ThreadPoolExecutor(8) as pool:
            settled = list(pool.map(settle, range(8)))
        assert {one.to_bytes() for one in settled} == {store.get(PRODUCTS, "key")}
