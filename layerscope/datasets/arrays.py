"""A dataset of the user's own: `.npz` files of images and labels, where whatever is wrong is said in a sentence.

Behind `layerscope datasets add`. The checks here are for people; `functions/datasets.py` holds the rules.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.datasets import MOST_PROBE_IMAGES, DatasetDescription, PartName
from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import is_name
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from layerscope.stores.object_store import ObjectStore

CLASS_NAME_CHARACTERS: Final = 128
CHANNELS: Final = (1, 2, 3, 4)
PARTS: Final[tuple[PartName, ...]] = ("train", "test", "probe")

_SAVE: Final = 'numpy.savez("test.npz", images=images, labels=labels)'

Array = NDArray[Any]


def add(
    store: ObjectStore,
    name: str,
    files: Mapping[PartName, Path],
    classes: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> DatasetDescription:
    """Check and store a dataset from its parts' files, `test` among them; what is there already is left as it is.

    Without a probe, a hundred test images become it. `mean` and `std` are by default those of train, else of test.

    Raises:
        Refused: something is wrong with the name, the classes, the figures or a file, and what to do about it.
    """
    if not is_name(name):
        raise Refused(
            "bad-name",
            f"{name!r} is not a name: 1 to 64 letters, digits, '.', '_', '=' or '-', the first a letter or digit.",
        )
    if "test" not in files:
        raise Refused("no-test-part", "A dataset needs a test part.", "--test test.npz")
    names = checked_classes(classes)
    parts = {part: read_part(part, files[part], len(names)) for part in PARTS if part in files}
    _check_shapes(parts)
    _check_probe(parts)
    channels = parts["test"].images.shape[3]
    _check_figures("mean", mean, channels)
    _check_figures("std", std, channels)
    if "probe" not in parts:
        parts["probe"] = parts["test"].take(datasets.choose_probe(parts["test"].labels))
    return datasets.write(store, name, names, parts, mean=mean, std=std, source="layerscope datasets add")


def read_part(part: PartName, path: Path, classes: int) -> PartArrays:
    """Read a part from an `.npz` file of `images`, uint8 NHWC or NHW, and `labels`, integers from 0; raises Refused."""
    what = f"The {part} part, {path.name},"
    arrays = _loaded(what, path)
    if missing := {"images", "labels"} - arrays.keys():
        found = ", ".join(arrays) or "nothing"
        raise Refused("missing-array", f"{what} lacks {' and '.join(sorted(missing))}; it has {found}.", _SAVE)
    images = _checked_images(what, arrays["images"])
    return PartArrays(images, _checked_labels(what, arrays["labels"], len(images), classes))


def _loaded(what: str, path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            return {name: file[name] for name in file.files} if isinstance(file, np.lib.npyio.NpzFile) else {}
    except OSError as error:
        raise Refused("unreadable", f"{what} cannot be read: {error.strerror or error}.") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Refused("not-npz", f"{what} is no .npz file of plain arrays.", _SAVE) from error


def _checked_images(what: str, images: Array) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        found = f"{images.dtype}{_range(images)}"
        raise Refused("not-uint8", f"{what} has images of type {found}, not uint8.", _bytes(images))
    if images.ndim not in (3, 4) or not images.size:
        raise Refused("bad-shape", f"{what} has images of the shape {images.shape}, not (N, H, W, C) or (N, H, W).")
    if images.ndim == 4 and images.shape[3] not in CHANNELS and images.shape[1] in CHANNELS:
        raise Refused(
            "channels-first",
            f"{what} has images of the shape {images.shape}, which looks like channels first.",
            "images = images.transpose(0, 2, 3, 1)",
        )
    return np.ascontiguousarray(images if images.ndim == 4 else images[..., None])


def _checked_labels(what: str, labels: Array, images: int, classes: int) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == classes > 1:
        raise Refused("one-hot", f"{what} has labels that are one-hot.", "labels = labels.argmax(1)")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise Refused(
            "bad-labels",
            f"{what} has labels of type {labels.dtype} and shape {labels.shape}, not integers of (N,).",
            "labels = labels.reshape(-1).astype(numpy.int64)",
        )
    if len(labels) != images:
        raise Refused("unequal-lengths", f"{what} has {images} images and {len(labels)} labels.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        hint = "labels = labels - 1" if (low, high) == (1, classes) else "name every class with --classes, in order"
        raise Refused(
            "label-out-of-range",
            f"{what} has labels {low} to {high}; of {classes} classes they are 0 to {classes - 1}.",
            hint,
        )
    return labels.astype(np.int64)


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes, stripped; raises Refused where one is empty, too long or there twice."""
    names = tuple(name.strip() for name in classes)
    if not any(names):
        raise Refused("no-classes", "A dataset needs the names of its classes.", "--classes cat,dog")
    for number, name in enumerate(names):
        if not name:
            raise Refused("bad-class", f"Class {number} has no name.", "--classes cat,dog")
        if len(name) > CLASS_NAME_CHARACTERS:
            raise Refused("bad-class", f"The name of class {number} has more than {CLASS_NAME_CHARACTERS} characters.")
        if name in names[:number]:
            raise Refused("bad-class", f"Classes {names.index(name)} and {number} have one name, {name!r}.")
    return names


def _check_shapes(parts: Mapping[PartName, PartArrays]) -> None:
    wanted = parts["test"].images.shape[1:]
    for name, part in parts.items():
        if part.images.shape[1:] != wanted:
            raise Refused(
                "unequal-shapes",
                f"Images of {name} are {_shown(part.images.shape[1:])}, and those of test {_shown(wanted)}.",
            )


def _check_probe(parts: Mapping[PartName, PartArrays]) -> None:
    if "probe" in parts and len(parts["probe"].images) > MOST_PROBE_IMAGES:
        raise Refused(
            "probe-too-large",
            f"The probe part has {len(parts['probe'].images)} images; layers are compared on {MOST_PROBE_IMAGES} at most.",
            "leave --probe out: a hundred test images, as even over the classes as can be, become it",
        )


def _check_figures(name: str, figures: Sequence[float] | None, channels: int) -> None:
    if figures is None:
        return
    if len(figures) != channels:
        raise Refused(f"bad-{name}", f"There are {channels} channels, and {len(figures)} figures in --{name}.")
    if not all(0 <= figure <= 1 and (figure > 0 or name == "mean") for figure in figures):
        raise Refused(
            f"bad-{name}",
            f"The figures of --{name} are not between 0 and 1.",
            "figures are of pixels scaled to 0..1: divide those of 0..255 by 255",
        )


def _range(images: Array) -> str:
    return f" from {images.min():g} to {images.max():g}" if images.size and images.dtype.kind in "iufb" else ""


def _bytes(images: Array) -> str:
    if images.dtype.kind == "f" and images.size and images.min() >= 0 and images.max() <= 1:
        return "images = (images * 255).round().astype(numpy.uint8)"
    if images.dtype.kind in "iuf" and images.size and images.min() >= 0 and images.max() <= 255:
        return "images = images.round().astype(numpy.uint8)"
    return "bring pixels to 0 to 255, then images.astype(numpy.uint8): normalization is left to --mean and --std"


def _shown(shape: tuple[int, ...]) -> str:
    return " × ".join(str(length) for length in shape)
