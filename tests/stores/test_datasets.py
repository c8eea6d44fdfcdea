"""Datasets as they are written, fetched and read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerscope.schemas.datasets import DatasetDescription, PartName
from layerscope.schemas.digests import sha256
from layerscope.schemas.errors import Refused
from layerscope.schemas.keys import DATASETS, dataset_description, dataset_part
from layerscope.stores import datasets
from layerscope.stores.datasets import DamagedDataset, Dataset, PartArrays
from layerscope.stores.directory_store import DirectoryStore

CLASSES = ("cat", "dog", "eel")


def part(count: int = 12, shape: tuple[int, int, int] = (5, 4, 3), seed: int = 0) -> PartArrays:
    random = np.random.default_rng(seed)
    return PartArrays(random.integers(0, 256, (count, *shape), np.uint8), np.arange(count, dtype=np.int64) % 3)


def parts() -> dict[PartName, PartArrays]:
    return {"train": part(30, seed=1), "test": part(12, seed=2), "probe": part(6, seed=3)}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store."""
    one = DirectoryStore(tmp_path / "store")
    one.ensure_buckets()
    return one


def times(store: DirectoryStore) -> dict[str, object]:
    return {one.key: one.modified for one in store.list(DATASETS)}


def test_what_is_written_is_described_and_read_back(store: DirectoryStore, tmp_path: Path) -> None:
    mine = parts()
    written = datasets.write(store, "pets", CLASSES, mine, source="a shelf")
    described = datasets.describe(store, "pets")
    assert described == written
    assert (written.name, written.classes, written.shape, written.source) == ("pets", CLASSES, (5, 4, 3), "a shelf")
    read = datasets.load(store, written, ("test", "probe"), tmp_path / "cache")
    assert set(read.parts) == {"test", "probe"}
    for name in ("test", "probe"):
        np.testing.assert_array_equal(read.part(name).images, mine[name].images)
        np.testing.assert_array_equal(read.part(name).labels, mine[name].labels)


def test_a_dataset_that_is_not_there_has_no_description(store: DirectoryStore) -> None:
    assert datasets.describe(store, "pets") is None


def test_parts_lie_under_their_digests_as_numpy_reads_them(store: DirectoryStore) -> None:
    mine = part()
    written = datasets.write(store, "pets", CLASSES, {"test": mine})
    content = store.get(DATASETS, dataset_part("pets", written.parts["test"].sha256))
    assert sha256(content) == written.parts["test"].sha256
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert (arrays["images"].dtype, arrays["labels"].dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(arrays["images"], mine.images)
        np.testing.assert_array_equal(arrays["labels"], mine.labels)


def test_equal_arrays_give_equal_bytes_however_they_lie_in_memory() -> None:
    one = part()
    other = PartArrays(np.asfortranarray(one.images), np.repeat(one.labels, 2)[::2])
    assert datasets.encode(one) == datasets.encode(other)


def test_the_bytes_of_a_part_are_the_same_on_every_machine() -> None:
    plain = PartArrays(np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1), np.array([0, 1]))
    assert sha256(datasets.encode(plain)) == "ac32530bac5deb2910094e3d945bfafaac3883e45e75c0ec8c6b7df13345dcf3"


def test_writing_the_same_again_writes_nothing(store: DirectoryStore) -> None:
    first = datasets.write(store, "pets", CLASSES, parts())
    before = times(store)
    assert datasets.write(store, "pets", CLASSES, parts()) == first
    assert times(store) == before


def test_a_new_part_moves_its_digest_and_leaves_the_others(store: DirectoryStore) -> None:
    first = datasets.write(store, "pets", CLASSES, parts())
    second = datasets.write(
        store, "pets", CLASSES, parts() | {"test": part(12, seed=9)}, mean=first.mean, std=first.std
    )
    assert second.part_digest("test") != first.part_digest("test")
    assert second.part_digest("probe") == first.part_digest("probe")
    assert datasets.describe(store, "pets") == second


def test_the_description_is_written_after_all_that_it_names() -> None:
    class Recording(DirectoryStore):
        def __init__(self) -> None:
            self.order: list[str] = []

        def head(self, bucket: str, key: str) -> None:
            return None

        def get(self, bucket: str, key: str, *, etag: str | None = None) -> bytes:
            return b""

        def put(self, bucket: str, key: str, content: bytes | Path, **_: object) -> bool:
            self.order.append(key)
            return True

    store = Recording()
    datasets.write(store, "pets", CLASSES, parts())
    assert len(store.order) == 4
    assert store.order[-1] == "pets/dataset.json"


def test_writing_again_repairs_a_part_that_was_cut_off(store: DirectoryStore, tmp_path: Path) -> None:
    written = datasets.write(store, "pets", CLASSES, parts())
    store.put(DATASETS, dataset_part("pets", written.parts["test"].sha256), b"half")
    with pytest.raises(DamagedDataset, match="datasets add"):
        datasets.load(store, written, ("test",), tmp_path / "cache")
    datasets.write(store, "pets", CLASSES, parts())
    assert len(datasets.load(store, written, ("test",), tmp_path / "cache").part("test")) == 12


@given(arrays(np.uint8, st.tuples(*(st.integers(1, 6) for _ in range(4)))))
def test_mean_and_deviation_are_those_of_numpy_in_double_precision(images: np.ndarray) -> None:
    mean, std = datasets.channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12, atol=1e-15)
    constant = np.ptp(images, (0, 1, 2)) == 0
    np.testing.assert_allclose(std, np.where(constant, 1.0, scaled.std((0, 1, 2))), rtol=1e-9)


def test_mean_and_deviation_are_taken_from_train_else_from_test(store: DirectoryStore) -> None:
    mine = parts()
    written = datasets.write(store, "pets", CLASSES, mine)
    np.testing.assert_allclose(written.mean, (mine["train"].images / 255).mean((0, 1, 2)), rtol=1e-12)
    written = datasets.write(store, "pets", CLASSES, {"test": mine["test"]})
    np.testing.assert_allclose(written.std, (mine["test"].images / 255).std((0, 1, 2)), rtol=1e-9)


def test_given_figures_are_kept_and_part_of_the_digest(store: DirectoryStore) -> None:
    first = datasets.write(store, "pets", CLASSES, parts(), mean=[0.1, 0.2, 0.3])
    assert first.mean == (0.1, 0.2, 0.3)
    second = datasets.write(store, "pets", CLASSES, parts(), mean=[0.0, 0.0, 0.0], std=[1, 1, 1])
    assert (second.mean, second.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert first.part_digest("test") != second.part_digest("test")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300), st.integers(1, 60))
def test_a_probe_is_as_even_as_the_classes_allow(labels: list[int], n: int) -> None:
    array = np.array(labels)
    chosen = datasets.choose_probe(array, n)
    assert len(chosen) == min(n, len(labels))
    assert (np.diff(chosen) > 0).all()
    there = dict(zip(*np.unique(array, return_counts=True), strict=True))
    taken = dict(zip(*np.unique(array[chosen], return_counts=True), strict=True))
    most = max(taken.values())
    assert all(taken.get(label, 0) in (count, most - 1, most) for label, count in there.items())
    np.testing.assert_array_equal(chosen, datasets.choose_probe(array, n))


def test_a_probe_has_ten_of_each_of_ten_classes_from_all_over_the_labels() -> None:
    labels = np.arange(5_000) % 10
    chosen = datasets.choose_probe(labels)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [10] * 10)
    assert chosen.min() < 500 and chosen.max() > 4_000
    many = datasets.choose_probe(np.arange(2_000) % 1_000)
    assert len(set(many % 1_000)) == 100 and (many % 1_000).max() > 900


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 1), np.float32), np.zeros(2, np.int64), "float32"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64), r"\(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32), "int32"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 1), np.int64), r"\(2, 1\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int64), "3 labels"),
        (np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int64), "0 images"),
        (np.zeros((2, 4, 0, 1), np.uint8), np.zeros(2, np.int64), r"\(4, 0, 1\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.array([0, -1]), "-1"),
    ],
)
def test_arrays_of_another_form_are_no_part(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartArrays(images, labels)


def test_a_parts_arrays_cannot_be_written_to() -> None:
    one = part()
    with pytest.raises(ValueError, match="read-only"):
        one.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        one.labels[0] = 1


def test_a_dataset_holds_what_its_description_says(store: DirectoryStore) -> None:
    written = datasets.write(store, "pets", CLASSES, parts())
    for name, wrong in (
        ("test", part(11)),
        ("test", part(12, (4, 5, 3))),
        ("elsewhere", part(12)),
        ("test", PartArrays(part(12).images, np.full(12, 3))),
    ):
        with pytest.raises(ValueError, match=f"part {name}"):
            Dataset(written, {name: wrong})


def test_parts_that_do_not_agree_are_not_written(store: DirectoryStore) -> None:
    bad: list[tuple[tuple[str, ...], dict[PartName, PartArrays], tuple[float, ...] | None]] = [
        (CLASSES, {"test": part(), "train": part(12, (4, 4, 3))}, None),
        (CLASSES[:2], {"test": part()}, None),
        (CLASSES, {}, None),
        (CLASSES, {"test": part()}, (0.5,)),
        (CLASSES, {"test": part()}, (float("nan"),) * 3),
    ]
    for classes, wrong, mean in bad:
        with pytest.raises(ValueError):
            datasets.write(store, "pets", classes, wrong, mean=mean)
    assert list(store.list(DATASETS)) == []


def test_a_part_that_the_dataset_does_not_have_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    written = datasets.write(store, "pets", CLASSES, {"test": part()})
    with pytest.raises(Refused, match="no probe part") as refused:
        datasets.fetch(store, written, ("test", "probe"), tmp_path)
    assert refused.value.code == "no-dataset-part"


def test_fetched_parts_are_kept_and_used_again(store: DirectoryStore, tmp_path: Path) -> None:
    written = datasets.write(store, "pets", CLASSES, parts())
    first = datasets.fetch(store, written, ("test",), tmp_path / "cache")
    for one in [one.key for one in store.list(DATASETS)]:
        store.remove(DATASETS, one)
    assert datasets.fetch(store, written, ("test",), tmp_path / "cache") == first
    with pytest.raises(DamagedDataset, match="part probe of the dataset pets"):
        datasets.fetch(store, written, ("probe",), tmp_path / "cache")


def test_a_kept_file_that_went_bad_is_fetched_again(store: DirectoryStore, tmp_path: Path) -> None:
    written = datasets.write(store, "pets", CLASSES, parts())
    path = datasets.fetch(store, written, ("test",), tmp_path / "cache")["test"]
    good = path.read_bytes()
    path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    again = datasets.load(store, written, ("test",), tmp_path / "cache").part("test")
    np.testing.assert_array_equal(again.images, parts()["test"].images)


def test_a_part_with_another_digest_than_described_is_an_error_that_says_so(
    store: DirectoryStore, tmp_path: Path
) -> None:
    written = datasets.write(store, "pets", CLASSES, parts())
    key = dataset_part("pets", written.parts["test"].sha256)
    store.put(DATASETS, key, store.get(DATASETS, key)[:-1] + b"x")
    with pytest.raises(DamagedDataset, match=rf"SHA-256 .* where {written.parts['test'].sha256}"):
        datasets.fetch(store, written, ("test",), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_part_far_larger_than_described_is_not_taken_in(store: DirectoryStore, tmp_path: Path) -> None:
    written = datasets.write(store, "pets", CLASSES, parts())
    store.put(DATASETS, dataset_part("pets", written.parts["test"].sha256), bytes(1_000_000))
    with pytest.raises(DamagedDataset, match="as described"):
        datasets.fetch(store, written, ("test",), tmp_path / "cache")


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def lying() -> bytes:
    """An `.npz` whose array says that it is a terabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000, 1), }"
        header = header.ljust(117) + b"\n"
        file.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"no zip file",
        lambda: npz(images=part().images),
        lambda: npz(images=part(11).images, labels=part().labels),
        lambda: npz(images=part(13).images, labels=part(13).labels),
        lambda: npz(images=part().images, labels=part().labels + 1),
        lambda: npz(images=part().images, labels=part().labels.astype(np.int32)),
        lambda: npz(images=part().images, labels=np.array([{}] * 12)),
        lambda: npz(images=np.zeros((12, 2_000, 2_000, 3), np.uint8), labels=part().labels),
        lying,
    ],
    ids=["empty", "no zip", "no labels", "too few", "too many", "label too high", "int32", "pickle", "bomb", "lying"],
)
def test_files_that_hold_something_else_are_damage_and_never_run(tmp_path: Path, make: Callable[[], bytes]) -> None:
    content = make()
    (tmp_path / "file").write_bytes(content)
    description = DatasetDescription.model_validate(
        {
            "name": "pets",
            "classes": CLASSES,
            "shape": (5, 4, 3),
            "mean": (0.5, 0.5, 0.5),
            "std": (1, 1, 1),
            "parts": {"test": {"sha256": sha256(content), "images": 12}},
        }
    )
    with pytest.raises(DamagedDataset, match="pets"):
        datasets.read(description, {"test": tmp_path / "file"})


@pytest.mark.parametrize("content", [b"", b"{", b"{}", json.dumps({"name": "pets"}).encode()])
def test_a_description_that_cannot_be_read_counts_as_absent_and_is_reported(
    store: DirectoryStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"pets{len(content)}"  # a fault is reported once in a process
    store.put(DATASETS, dataset_description(name), content)
    assert datasets.describe(store, name) is None
    assert f"{name}/dataset.json cannot be read" in caplog.text
