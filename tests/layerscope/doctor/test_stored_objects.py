"""`doctor --deep` over a directory: it names the damaged object and who makes it again, and says nothing else."""

from __future__ import annotations

from pathlib import Path

from layerscope.doctor import stored_objects
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.stores.directory_store import DirectoryStore
from layerscope.systems import make_embedded
from tests.functions.bucket import Bucket, add_dataset


def test_a_damaged_object_is_named_with_what_mends_it(tmp_path: Path) -> None:
    directory = make_embedded(tmp_path / "system").directory
    store = DirectoryStore(directory)
    store.ensure_buckets()
    add_dataset(store)
    Bucket(store, Identity("tiny", "net", "1")).settle(0)
    (sound,) = stored_objects.examine(str(directory), {})
    assert (sound.ok, sound.found) == (True, "each is what its name says")
    damaged = next(one for one in store.list(keys.PRODUCTS, keys.BLOBS) if one.size > 100)
    store.put(keys.PRODUCTS, damaged.key, b"X" * damaged.size)
    (found,) = stored_objects.examine(str(directory), {})
    assert (found.ok, found.found) == (False, "1 damaged")
    assert damaged.key in found.advice
    assert "repair makes it again" in found.advice


def test_where_there_is_no_system_it_says_so(tmp_path: Path) -> None:
    (found,) = stored_objects.examine(str(tmp_path / "nothing"), {})
    assert found.ok is False


def test_what_operators_and_replay_keep_is_read_too(tmp_path: Path) -> None:
    directory = make_embedded(tmp_path / "system").directory
    store = DirectoryStore(directory)
    store.ensure_buckets()
    for key in (keys.dead_letter("0" * 32), keys.REPAIR_HEALTH, keys.replay("20260301T000000-0badcafe", "plan")):
        store.put(keys.PRODUCTS, key, b"{")
        (found,) = stored_objects.examine(str(directory), {})
        assert (found.ok, found.found) == (False, "1 damaged")
        assert key in found.advice
        store.remove(keys.PRODUCTS, key)
