"""Datasets of users: what is taken, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscope.datasets.arrays import add
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.keys import DATASETS
from layerscope.stores import datasets
from layerscope.stores.directory_store import DirectoryStore

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store."""
    one = DirectoryStore(tmp_path / "store")
    one.ensure_buckets()
    return one


def images(count: int = 30, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (6, 5, 3))), np.uint8)


def labels(count: int = 30) -> np.ndarray:
    return np.arange(count) % 3


def saved(path: Path, **arrays: Any) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


@pytest.fixture
def good_file(tmp_path: Path) -> Path:
    """A good test part."""
    return saved(tmp_path / "test.npz", images=images(), labels=labels())


def test_a_test_part_alone_makes_a_dataset_with_a_probe(store: DirectoryStore, good_file: Path, tmp_path: Path) -> None:
    made = add(store, "pets", {"test": good_file}, [" cat", "dog ", "eel"])
    assert made == datasets.describe(store, "pets")
    assert (made.classes, made.shape, set(made.parts)) == (("cat", "dog", "eel"), (6, 5, 3), {"test", "probe"})
    np.testing.assert_allclose(made.mean, (images() / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(made.std, (images() / 255).std((0, 1, 2)), rtol=1e-9)
    read = datasets.load(store, made, ("test", "probe"), tmp_path / "cache")
    np.testing.assert_array_equal(read.part("test").images, images())
    np.testing.assert_array_equal(read.part("test").labels, labels())


def test_the_probe_is_a_hundred_test_images_as_even_as_can_be(store: DirectoryStore, tmp_path: Path) -> None:
    large = saved(tmp_path / "test.npz", images=images(400), labels=labels(400))
    made = add(store, "pets", {"test": large}, CLASSES)
    probe = datasets.load(store, made, ("probe",), tmp_path / "cache").part("probe")
    assert sorted(np.bincount(probe.labels)) == [33, 33, 34]
    known = {image.tobytes() for image in images(400)}
    assert all(image.tobytes() in known for image in probe.images)


def test_train_and_probe_and_figures_are_taken_as_given(store: DirectoryStore, good_file: Path, tmp_path: Path) -> None:
    train = saved(tmp_path / "train.npz", images=images(60, seed=1), labels=labels(60))
    probe = saved(tmp_path / "probe.npz", images=images(9, seed=2), labels=labels(9))
    made = add(store, "pets", {"test": good_file, "train": train, "probe": probe}, CLASSES)
    assert {name: part.images for name, part in made.parts.items()} == {"train": 60, "test": 30, "probe": 9}
    np.testing.assert_allclose(made.mean, (images(60, seed=1) / 255).mean((0, 1, 2)), rtol=1e-12)
    made = add(store, "pets", {"test": good_file}, CLASSES, [0.4, 0.5, 0.6], [0.2, 0.2, 1])
    assert (made.mean, made.std) == ((0.4, 0.5, 0.6), (0.2, 0.2, 1.0))


def test_images_without_channels_get_one(store: DirectoryStore, tmp_path: Path) -> None:
    path = saved(tmp_path / "test.npz", images=images(30, 6, 5), labels=labels())
    made = add(store, "grey", {"test": path}, CLASSES)
    assert made.shape == (6, 5, 1)
    read = datasets.load(store, made, ("test",), tmp_path / "cache").part("test")
    np.testing.assert_array_equal(read.images[..., 0], images(30, 6, 5))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint64, ">i4"])
def test_labels_may_be_integers_of_any_kind(store: DirectoryStore, tmp_path: Path, kind: Any) -> None:
    path = saved(tmp_path / "test.npz", images=images(), labels=labels().astype(kind))
    made = add(store, "pets", {"test": path}, CLASSES)
    reference = saved(tmp_path / "reference.npz", images=images(), labels=labels())
    assert made == add(store, "pets", {"test": reference}, CLASSES)


@pytest.mark.parametrize(
    ("arrays", "code", "message", "hint"),
    [
        (
            {"images": images() / np.float32(255), "labels": labels()},
            "not-uint8",
            "float32 from 0 to 1",
            "images * 255",
        ),
        ({"images": images().astype(int), "labels": labels()}, "not-uint8", "int64 from 0 to 255", "astype"),
        ({"images": images() / 128 - 1, "labels": labels()}, "not-uint8", "float64 from -1 to", "--mean"),
        ({"images": images() > 127, "labels": labels()}, "not-uint8", "bool", "astype"),
        ({"images": images(30, 6), "labels": labels()}, "bad-shape", r"\(30, 6\)", ""),
        ({"images": images(0, 6, 5, 3), "labels": labels(0)}, "bad-shape", r"\(0, 6, 5, 3\)", ""),
        (
            {"images": images(30, 3, 32, 32), "labels": labels()},
            "channels-first",
            "channels first",
            "transpose(0, 2, 3, 1)",
        ),
        ({"images": images(), "labels": labels() + 0.5}, "bad-labels", "float64", "astype"),
        ({"images": images(), "labels": labels()[:, None]}, "bad-labels", r"\(30, 1\)", "reshape"),
        ({"images": images(), "labels": np.eye(3)[labels()]}, "one-hot", "one-hot", "argmax"),
        ({"images": images(), "labels": labels(29)}, "unequal-lengths", "30 images and 29 labels", ""),
        (
            {"images": images(), "labels": labels() + 1},
            "label-out-of-range",
            "1 to 3; of 3 classes they are 0 to 2",
            "- 1",
        ),
        ({"images": images(), "labels": labels() * 4}, "label-out-of-range", "0 to 8", "--classes"),
        ({"images": images(), "labels": labels() - 1}, "label-out-of-range", "-1 to 1", ""),
        ({"x": images(), "labels": labels()}, "missing-array", "lacks images; it has x, labels", "savez"),
        ({"images": images(), "labels": np.array([{}] * 30)}, "not-npz", "plain arrays", "savez"),
    ],
)
def test_arrays_that_will_not_do_are_refused_with_the_way_to_mend_them(
    store: DirectoryStore, tmp_path: Path, arrays: dict[str, Any], code: str, message: str, hint: str
) -> None:
    path = saved(tmp_path / "mine.npz", **arrays)
    with pytest.raises(Refused, match=message) as refused:
        add(store, "pets", {"test": path}, CLASSES)
    assert refused.value.code == code
    assert "test part, mine.npz" in refused.value.message
    assert hint in refused.value.hint
    assert list(store.list(DATASETS)) == []


def test_files_that_are_no_npz_are_refused(store: DirectoryStore, tmp_path: Path) -> None:
    good = saved(tmp_path / "good.npz", images=images(), labels=labels()).read_bytes()
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "not-npz"),
        "text": (b"images,labels\n", "not-npz"),
        "pickle": (b"\x80\x04K\x01.", "not-npz"),
        "cut": (good[:-200], "not-npz"),
        "broken": (good[:100] + bytes(200) + good[300:], "not-npz"),
    }
    for name, (content, code) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refused) as refused:
            add(store, "pets", {"test": tmp_path / name}, CLASSES)
        assert refused.value.code == code, name
    np.save(tmp_path / "one.npy", images())
    with pytest.raises(Refused, match="lacks images and labels"):
        add(store, "pets", {"test": tmp_path / "one.npy"}, CLASSES)
    with pytest.raises(Refused, match="No such file"):
        add(store, "pets", {"test": tmp_path / "nothing"}, CLASSES)


def test_a_probe_too_large_for_the_index_is_refused(store: DirectoryStore, good_file: Path, tmp_path: Path) -> None:
    probe = saved(tmp_path / "probe.npz", images=images(257), labels=labels(257))
    with pytest.raises(Refused, match="257 images") as refused:
        add(store, "pets", {"test": good_file, "probe": probe}, CLASSES)
    assert refused.value.code == "probe-too-large"


def test_parts_of_different_shapes_are_refused(store: DirectoryStore, good_file: Path, tmp_path: Path) -> None:
    train = saved(tmp_path / "train.npz", images=images(30, 6, 5), labels=labels())
    with pytest.raises(Refused, match="of train are 6 × 5 × 1, and those of test 6 × 5 × 3"):
        add(store, "pets", {"test": good_file, "train": train}, CLASSES)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([""], "names of its classes"),
        ([], "names of its classes"),
        (["cat", "", "eel"], "Class 1 has no name"),
        (["cat", "dog", "cat"], "Classes 0 and 2 have one name, 'cat'"),
        (["cat", "dog", "e" * 129], "class 2 has more than 128 characters"),
    ],
)
def test_classes_need_names_of_their_own(
    store: DirectoryStore, good_file: Path, classes: list[str], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        add(store, "pets", {"test": good_file}, classes)


@pytest.mark.parametrize(
    ("mean", "std", "code"),
    [
        ([0.5], None, "bad-mean"),
        (None, [0.5] * 4, "bad-std"),
        ([127.0] * 3, None, "bad-mean"),
        ([float("nan")] * 3, None, "bad-mean"),
        (None, [0.5, 0.0, 0.5], "bad-std"),
    ],
)
def test_figures_that_cannot_be_are_refused(
    store: DirectoryStore, good_file: Path, mean: list[float] | None, std: list[float] | None, code: str
) -> None:
    with pytest.raises(Refused) as refused:
        add(store, "pets", {"test": good_file}, CLASSES, mean, std)
    assert refused.value.code == code


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "é", "n" * 65])
def test_names_that_no_upload_could_have_are_refused(store: DirectoryStore, good_file: Path, name: str) -> None:
    with pytest.raises(Refused, match="is not a name"):
        add(store, name, {"test": good_file}, CLASSES)


def test_a_dataset_needs_a_test_part(store: DirectoryStore, good_file: Path) -> None:
    with pytest.raises(Refused, match="test part"):
        add(store, "pets", {"train": good_file}, CLASSES)


def test_adding_the_same_again_changes_nothing(store: DirectoryStore, good_file: Path) -> None:
    def added() -> tuple[DatasetDescription, list[object]]:
        return add(store, "pets", {"test": good_file}, CLASSES), [one.modified for one in store.list(DATASETS)]

    assert added() == added()
