"""Datasets that torchvision knows, from small files in each one's own format, and pictures in folders."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerscope.datasets import image_folders, torchvision_readers
from layerscope.schemas.errors import Refused
from layerscope.stores import datasets
from layerscope.stores.directory_store import DirectoryStore

DRAW = np.random.default_rng(7)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    one = DirectoryStore(tmp_path / "store")
    one.ensure_buckets()
    return one


def _idx(path: Path, array: np.ndarray) -> None:
    """Write the format of MNIST: magic number, sizes, bytes, all big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def _mnist(folder: str, prefix: dict[str, str], classes: range) -> Callable[[Path], dict[str, tuple]]:
    def write(root: Path) -> dict[str, tuple]:
        made = {}
        for part, name in prefix.items():
            images = DRAW.integers(0, 256, (60, 28, 28), np.uint8)
            labels = np.resize(np.array(classes, np.uint8), 60)
            _idx(root / folder / "raw" / f"{name}-images-idx3-ubyte", images)
            _idx(root / folder / "raw" / f"{name}-labels-idx1-ubyte", labels)
            made[part] = (images[..., None], labels.astype(np.int64) - classes[0])
        return made

    return write


def _cifar(folder: str, files: dict[str, list[str]], labels_name: bytes, meta: tuple[str, str, int]) -> Callable:
    def write(root: Path) -> dict[str, tuple]:
        place, made = root / folder, {}
        place.mkdir(parents=True)
        file, names, count = meta
        (place / file).write_bytes(pickle.dumps({names: [f"class {number}" for number in range(count)]}))
        for part, parts in files.items():
            images, labels = [], []
            for one in parts:
                drawn = DRAW.integers(0, 256, (20, 3, 32, 32), np.uint8)
                truth = [int(number) for number in DRAW.integers(0, count, 20)]
                (place / one).write_bytes(pickle.dumps({"data": drawn.reshape(20, -1), labels_name.decode(): truth}))
                images.append(drawn.transpose(0, 2, 3, 1))
                labels += truth
            made[part] = (np.concatenate(images), np.array(labels))
        return made

    return write


def _svhn(root: Path) -> dict[str, tuple]:
    from scipy.io import savemat

    root.mkdir(exist_ok=True)
    made = {}
    for part in ("train", "test"):
        images = DRAW.integers(0, 256, (30, 32, 32, 3), np.uint8)
        labels = np.resize(np.arange(10), 30)
        written = np.where(labels == 0, 10, labels)[:, None]  # the file's own way to write a nought
        savemat(root / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": written})
        made[part] = (images, labels)
    return made


_IDX = {"train": "train", "test": "t10k"}
NATIVE: dict[str, Callable[[Path], dict[str, tuple]]] = {
    "mnist": _mnist("MNIST", _IDX, range(10)),
    "fashion_mnist": _mnist("FashionMNIST", _IDX, range(10)),
    "emnist": _mnist("EMNIST", {"train": "emnist-letters-train", "test": "emnist-letters-test"}, range(1, 27)),
    "cifar10": _cifar(
        "cifar-10-batches-py",
        {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
        b"labels",
        ("batches.meta", "label_names", 10),
    ),
    "cifar100": _cifar(
        "cifar-100-python",
        {"train": ["train"], "test": ["test"]},
        b"fine_labels",
        ("meta", "fine_label_names", 100),
    ),
    "svhn": _svhn,
}
USUAL = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "emnist": ((0.1751,), (0.3332,)),
}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files have other digests than those that torchvision knows."""
    from torchvision.datasets import CIFAR10, EMNIST, MNIST, SVHN, cifar

    for reader in (CIFAR10, cifar.CIFAR100):
        monkeypatch.setattr(reader, "_check_integrity", lambda _: True)
    monkeypatch.setattr(SVHN, "_check_integrity", lambda _: True)
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    assert issubclass(EMNIST, MNIST)


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.usefixtures("unchecked")
def test_a_dataset_is_read_from_the_files_that_torchvision_keeps(
    name: str, store: DirectoryStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    written = NATIVE[name](root)
    made = torchvision_readers.add(store, name, root, download=False)
    read = datasets.load(store, made, ("train", "test", "probe"), tmp_path / "cache")
    for part, (images, labels) in written.items():
        np.testing.assert_array_equal(read.part(part).images, images)
        np.testing.assert_array_equal(read.part(part).labels, labels)
    assert len(made.classes) == {"cifar100": 100, "emnist": 26}.get(name, 10)
    if name in USUAL:
        assert (made.mean, made.std) == USUAL[name]
    else:
        np.testing.assert_allclose(made.mean, (written["train"][0] / 255).mean((0, 1, 2)), rtol=1e-12)
    assert torchvision_readers.add(store, name, root, download=False) == made


@pytest.mark.slow
def test_a_dataset_that_is_not_there_says_what_to_do(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="mnist is not in") as refused:
        torchvision_readers.add(store, "mnist", tmp_path / "nothing", download=False)
    assert refused.value.hint.endswith(f"layerscope datasets add mnist --root {tmp_path / 'nothing'}")


def picture(path: Path, shape: tuple[int, ...], mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = DRAW.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def test_folders_are_classes_in_sorted_order(store: DirectoryStore, tmp_path: Path) -> None:
    drawn = [picture(tmp_path / f"data/test/{name}/{number}.png", (5, 6, 3)) for name in "ba" for number in range(3)]
    made = image_folders.add(store, "pets", tmp_path / "data")
    read = datasets.load(store, made, ("test", "probe"), tmp_path / "cache").part("test")
    assert (made.classes, made.shape) == (("a", "b"), (5, 6, 3))
    np.testing.assert_array_equal(read.images, np.stack(drawn[3:] + drawn[:3]))
    assert read.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_grey_pictures_stay_grey_and_sizes_are_made_equal_if_asked(store: DirectoryStore, tmp_path: Path) -> None:
    picture(tmp_path / "data/test/a/1.png", (5, 6), "L")
    picture(tmp_path / "data/test/a/2.png", (7, 7), "L")
    with pytest.raises(Refused, match="several sizes") as refused:
        image_folders.add(store, "pets", tmp_path / "data")
    assert refused.value.hint == "add --size 32x32"
    assert image_folders.add(store, "pets", tmp_path / "data", (4, 8)).shape == (4, 8, 1)


def test_what_is_wrong_with_a_folder_is_said(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no folder test"):
        image_folders.add(store, "pets", tmp_path)
    (tmp_path / "test/a").mkdir(parents=True)
    with pytest.raises(Refused, match="no pictures"):
        image_folders.add(store, "pets", tmp_path)
    (tmp_path / "test/a/broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(Refused, match="cannot be read"):
        image_folders.add(store, "pets", tmp_path)
    (tmp_path / "test/a/broken.png").unlink()
    picture(tmp_path / "test/a/1.png", (5, 5, 3))
    picture(tmp_path / "train/z/1.png", (5, 5, 3))
    with pytest.raises(Refused, match="has a class 'z'"):
        image_folders.add(store, "pets", tmp_path)
