"""The datasets that everybody knows, by torchvision's own readers: what they are called, and what a model sees of them.

Behind `layerscope datasets add mnist --root DIR`. Images stay as torchvision gives them, for that is what models were
trained on: those of EMNIST are lying on their side. The means and deviations are the ones that training scripts use,
and where there is no such custom they are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.datasets import DatasetDescription, PartName
from layerscope.schemas.errors import Refused
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from layerscope.stores.object_store import ObjectStore

Say = Callable[[str], None]
DIGITS: Final = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class Standard:
    """One dataset of torchvision: its class there, the arguments of each part, and the usual figures."""

    reader: str
    parts: Mapping[PartName, Mapping[str, Any]]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    first_label: int = 0


_BY_TRAIN: Final[Mapping[PartName, Mapping[str, Any]]] = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT: Final[Mapping[PartName, Mapping[str, Any]]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_LETTERS: Final[Mapping[PartName, Mapping[str, Any]]] = {
    part: {"split": "letters", **arguments} for part, arguments in _BY_TRAIN.items()
}

STANDARD: Final[Mapping[str, Standard]] = {
    "mnist": Standard("MNIST", _BY_TRAIN, (0.1307,), (0.3081,), DIGITS),
    "fashion_mnist": Standard("FashionMNIST", _BY_TRAIN, (0.2860,), (0.3530,)),
    "cifar10": Standard("CIFAR10", _BY_TRAIN, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Standard("CIFAR100", _BY_TRAIN),
    "svhn": Standard("SVHN", _BY_SPLIT, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), DIGITS),
    "emnist": Standard("EMNIST", _LETTERS, (0.1751,), (0.3332,), tuple(ascii_lowercase), first_label=1),
}


def add(
    store: ObjectStore, name: str, root: Path, *, download: bool = True, say: Say = lambda _: None
) -> DatasetDescription:
    """Store one of the datasets in `STANDARD`, as it lies below `root`, from where it is fetched if it is not there.

    Raises:
        Refused: it is not there and cannot be fetched, or its files are damaged.
    """
    standard = STANDARD[name]
    parts: dict[PartName, PartArrays] = {}
    classes = standard.classes
    for part, arguments in standard.parts.items():
        say(f"reading the {part} part of {name} in {root}")
        reader = _reader(name, standard.reader, root, arguments, download)
        classes = classes or tuple(reader.classes)
        parts[part] = PartArrays(_images(reader.data), _labels(reader, standard.first_label))
        say(f"{part}: {len(parts[part]):,} images of {' × '.join(map(str, parts[part].images.shape[1:]))}")
    parts["probe"] = parts["test"].take(datasets.choose_probe(parts["test"].labels))
    return datasets.write(
        store,
        name,
        classes or (),
        parts,
        mean=standard.mean,
        std=standard.std,
        source=f"torchvision.datasets.{standard.reader}",
        first_label=standard.first_label,
    )


def _reader(name: str, reader: str, root: Path, arguments: Mapping[str, Any], download: bool) -> Any:
    from torchvision import datasets as readers  # takes seconds, and is needed once

    make = getattr(readers, reader)
    try:
        return make(str(root), **arguments, download=False)
    except RuntimeError as error:
        if not download:
            raise _missing(name, root, str(error)) from error
    try:
        return make(str(root), **arguments, download=True)
    except (RuntimeError, OSError) as error:
        raise _missing(name, root, str(error)) from error


def _missing(name: str, root: Path, reason: str) -> Refused:
    line = reason.strip().splitlines()[0][:300] if reason.strip() else "no reason is known"
    return Refused(
        "dataset-not-found",
        f"{name} is not in {root}, and it cannot be downloaded: {line.rstrip('.')}.",
        f"put torchvision's files there, then: layerscope datasets add {name} --root {root}",
    )


def _images(data: Any) -> NDArray[np.uint8]:
    """Return images as uint8 (N, H, W, C), however the reader holds them."""
    images = np.asarray(data)
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)  # SVHN has its channels first
    return np.ascontiguousarray(images, np.uint8)


def _labels(reader: Any, first: int) -> NDArray[np.int64]:
    """Return labels from 0."""
    labels = reader.labels if hasattr(reader, "labels") else reader.targets
    return np.asarray(labels, np.int64) - first
