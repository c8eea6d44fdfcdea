"""A dataset from folders of pictures: `DIR/test/<class>/*.png`, and `train` and `probe` next to `test` if there are any.

Behind `layerscope datasets add NAME --folder DIR`. Classes are the folders' names in sorted order, as in
`torchvision.datasets.ImageFolder`, so labels are those that the model was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from layerscope.datasets.arrays import checked_classes
from layerscope.schemas.datasets import DatasetDescription, PartName
from layerscope.schemas.errors import Refused
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from layerscope.stores.object_store import ObjectStore

EXTENSIONS: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
PARTS: Final[tuple[PartName, ...]] = ("test", "train", "probe")
MOST_PIXELS: Final = 64_000_000
GREYS: Final = ("1", "L", "I;16", "I", "F", "LA")

Say = Callable[[str], None]


def add(
    store: ObjectStore,
    name: str,
    folder: Path,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    say: Say = lambda _: None,
) -> DatasetDescription:
    """Store the pictures below `folder`; `size`, height and width, resizes them (bilinear), as does a model's transform.

    They are grey if all of the test part are, and RGB otherwise.

    Raises:
        Refused: no test part, no pictures, pictures of several sizes, one that cannot be read, other classes in a part.
    """
    if not (folder / "test").is_dir():
        raise Refused(
            "no-test-part",
            f"{folder} has no folder test with one folder a class in it.",
            f"mkdir -p {folder}/test, and move the folders of the classes there",
        )
    classes = checked_classes(sorted(one.name for one in (folder / "test").iterdir() if one.is_dir()))
    grey = all(_mode(path) in GREYS for path, _ in _pictures(folder / "test", classes))
    parts: dict[PartName, PartArrays] = {}
    for part in PARTS:
        if (folder / part).is_dir():
            parts[part] = _part(folder / part, classes, "L" if grey else "RGB", size)
            say(f"{part}: {len(parts[part]):,} pictures")
    if len({part.images.shape[1:] for part in parts.values()}) > 1:
        raise _sizes(folder)
    if "probe" not in parts:
        parts["probe"] = parts["test"].take(datasets.choose_probe(parts["test"].labels))
    return datasets.write(store, name, classes, parts, mean=mean, std=std, source="layerscope datasets add --folder")


def _pictures(folder: Path, classes: Sequence[str]) -> Iterator[tuple[Path, int]]:
    """Yield every picture of a part with its label, by class and name."""
    there = sorted(one.name for one in folder.iterdir() if one.is_dir())
    if unknown := sorted(set(there) - set(classes)):
        raise Refused("unknown-class", f"{folder} has a class {unknown[0]!r}, which the test part has not.")
    for label, name in enumerate(classes):
        for path in sorted((folder / name).rglob("*")):
            if path.suffix.lower() in EXTENSIONS:
                yield path, label


def _part(folder: Path, classes: Sequence[str], mode: str, size: tuple[int, int] | None) -> PartArrays:
    images, labels = [], []
    terminal = Console(stderr=True)
    found = list(_pictures(folder, classes))
    for path, label in track(
        found, f"reading {folder.name}", console=terminal, transient=True, disable=not terminal.is_terminal
    ):
        images.append(_pixels(path, mode, size))
        labels.append(label)
    if not images:
        raise Refused(
            "no-pictures", f"{folder} has no pictures ({', '.join(EXTENSIONS)}) in the folders of its classes."
        )
    if len({one.shape for one in images}) > 1:
        raise _sizes(folder)
    return PartArrays(np.stack(images), np.array(labels, np.int64))


def _mode(path: Path) -> str:
    with _opened(path) as picture:
        return picture.mode


def _pixels(path: Path, mode: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    with _opened(path) as picture:
        try:
            converted = picture.convert(mode)
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(path, error) from error
    if size is not None:
        converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _opened(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise Refused("picture-too-large", f"{path} has {picture.width} × {picture.height} pixels.")
    return picture


def _unreadable(path: Path, error: Exception) -> Refused:
    return Refused("unreadable-picture", f"{path} cannot be read: {error}.", "remove the file, or write it again")


def _sizes(folder: Path) -> Refused:
    return Refused("unequal-shapes", f"The pictures in {folder} are of several sizes.", "add --size 32x32")
