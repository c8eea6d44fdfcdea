"""The common probe set: made once for an image shape, and changed by nobody but who asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of
from layerscope.schemas.datasets import CommonProbe, DatasetDescription
from layerscope.schemas.errors import NotFound
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.class_vectors import ClassVectors
from layerscope.stores import common_probe, datasets
from layerscope.stores.datasets import PartArrays
from tests.stores.memory_store import MemoryStore

SIDE = 4


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def add(store: MemoryStore, name: str, shade: int, images: int = 300, side: int = SIDE, classes: int = 3) -> None:
    pixels = np.random.default_rng(shade).integers(0, 256, (images, side, side, 1), np.uint8)
    part = PartArrays(pixels, np.arange(images, dtype=np.int64) % classes)
    datasets.write(store, name, [str(number) for number in range(classes)], {"test": part, "probe": part})


def described(store: MemoryStore, name: str) -> DatasetDescription:
    found = datasets.describe(store, name)
    assert found is not None
    return found


def common(store: MemoryStore, name: str) -> CommonProbe:
    found = described(store, name).common
    assert found is not None
    return found


def test_datasets_of_a_shape_share_images_of_all_of_them_and_others_do_not(store: MemoryStore, tmp_path: Path) -> None:
    for name, shade, side in (("a", 1, SIDE), ("b", 2, SIDE), ("large", 3, 8)):
        add(store, name, shade, side=side)
    common_probe.ensure(store)
    assert common(store, "a") == common(store, "b") != common(store, "large")
    assert (common(store, "a").images, common(store, "a").sources) == (256, ("a", "b"))
    assert common(store, "large").sources == ("large",)
    loaded = [datasets.load(store, described(store, one), ("common", "probe"), tmp_path) for one in ("a", "b")]
    shared = loaded[0].part("common").images
    assert (shared == loaded[1].part("common").images).all()
    for one in loaded:
        own = {image.tobytes() for image in one.part("probe").images}
        assert sum(image.tobytes() in own for image in shared) == 128


def test_what_is_there_is_left_as_it_is_and_the_same_datasets_lead_to_the_same_set(store: MemoryStore) -> None:
    add(store, "a", 1)
    common_probe.ensure(store)
    before = {one.key: one.etag for one in store.list(keys.DATASETS)}
    common_probe.ensure(store)
    assert {one.key: one.etag for one in store.list(keys.DATASETS)} == before
    other = MemoryStore()
    add(other, "a", 1)
    common_probe.ensure(other)
    assert common(other, "a") == common(store, "a")


def test_no_address_moves_when_a_dataset_is_added_to_models_and_only_what_is_made_over_it_when_it_is_renewed(
    store: MemoryStore,
) -> None:
    def addresses() -> dict[str, str]:
        facts = Facts(Identity("a", "net", "1"), "0" * 64, described(store, "a"))
        return {one.declared.name: address_of(one, facts) for one in declared_products()}

    add(store, "a", 1)
    without = addresses()
    common_probe.ensure(store)
    before = addresses()
    assert {name for name in before if before[name] != without[name]} == {"class_vectors", "common_layers"}
    store.put(keys.MODELS, "a/net/1.safetensors", b"weights")

    add(store, "b", 2)
    common_probe.ensure(store)
    assert addresses() == before
    assert common(store, "b") == common(store, "a")
    assert common(store, "b").sources == ("a",)

    assert [one.name for one in common_probe.renew(store, "b")] == ["a", "b"]
    assert common(store, "b") == common(store, "a")
    assert common(store, "b").sources == ("a", "b")
    after = addresses()
    assert {name for name in after if after[name] != before[name]} == {"class_vectors", "common_layers"}


def test_while_no_model_stands_on_it_a_set_is_made_of_what_was_added_too(store: MemoryStore) -> None:
    add(store, "a", 1)
    common_probe.ensure(store)
    add(store, "b", 2)
    common_probe.ensure(store)
    assert common(store, "a") == common(store, "b")
    assert common(store, "a").sources == ("a", "b")


def test_a_dataset_that_is_added_again_keeps_its_set_unless_its_shape_is_another(store: MemoryStore) -> None:
    add(store, "a", 1)
    common_probe.ensure(store)
    kept = common(store, "a")
    add(store, "a", 5)
    assert common(store, "a") == kept
    add(store, "a", 5, side=8)
    assert described(store, "a").common is None


def test_a_renewal_that_was_cut_short_is_completed_by_another(store: MemoryStore) -> None:
    for name, shade in (("a", 1), ("b", 2)):
        add(store, name, shade)
        common_probe.ensure(store)
        store.put(keys.MODELS, f"{name}/net/1.safetensors", b"weights")
    half = described(store, "b")
    common_probe.renew(store, "a")
    store.put(keys.DATASETS, keys.dataset_description("b"), half.model_dump_json().encode())  # as it was before
    assert common(store, "a") != common(store, "b")
    common_probe.renew(store, "a")
    assert common(store, "a") == common(store, "b")


def test_a_set_whose_images_are_lost_is_given_again(store: MemoryStore, tmp_path: Path) -> None:
    for name, shade in (("a", 1), ("b", 2)):
        add(store, name, shade)
    common_probe.ensure(store)
    store.put(keys.MODELS, "a/net/1.safetensors", b"weights")
    store.remove(keys.DATASETS, keys.dataset_part("a", common(store, "a").sha256))
    common_probe.ensure(store)
    assert len(datasets.load(store, described(store, "a"), ("common",), tmp_path).part("common")) == 256


def test_a_dataset_that_is_not_there_has_no_set_to_renew(store: MemoryStore) -> None:
    with pytest.raises(NotFound, match="no dataset nowhere"):
        common_probe.renew(store, "nowhere")


@pytest.mark.parametrize(("side", "images"), [(64, 256), (257, 100)])
def test_large_images_are_fewer(side: int, images: int) -> None:
    part = PartArrays(np.zeros((300, side, side, 1), np.uint8), np.arange(300, dtype=np.int64) % 10)
    assert len(common_probe.chosen([part])) == images


def test_class_vectors_are_made_from_the_common_set_alone() -> None:
    assert ClassVectors.declared.parts == ("common",)
