"""Which of the three ways to add a dataset is meant: by its name, from folders of pictures, or from arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from layerscope.datasets import arrays, image_folders
from layerscope.datasets.torchvision_readers import STANDARD
from layerscope.datasets.torchvision_readers import add as add_standard
from layerscope.schemas.datasets import DatasetDescription, PartName
from layerscope.schemas.errors import Refused
from layerscope.stores.object_store import ObjectStore

_WAYS = (
    "layerscope datasets add mnist --root DIR, layerscope datasets add NAME --folder DIR, "
    "or layerscope datasets add NAME --test test.npz --classes a,b,c"
)


def add(
    store: ObjectStore,
    name: str,
    files: Mapping[PartName, Path],
    *,
    root: Path | None,
    folder: Path | None,
    size: str | None,
    classes: str | None,
    mean: str | None,
    std: str | None,
    download: bool,
    say: Callable[[str], None],
) -> DatasetDescription:
    """Add a dataset from what the command line was given; raises Refused where that is not one whole way."""
    if [root is not None, folder is not None, "test" in files].count(True) != 1:
        raise Refused("which-dataset", "Say where the dataset is, in one way.", _WAYS)
    means, deviations = _figures("mean", mean), _figures("std", std)
    if root is not None:
        if name not in STANDARD:
            raise Refused("unknown-dataset", f"--root goes with {', '.join(STANDARD)}, not with {name!r}.", _WAYS)
        return add_standard(store, name, root, download=download, say=say)
    if folder is not None:
        return image_folders.add(store, name, folder, _size(size), means, deviations, say)
    return arrays.add(store, name, files, (classes or "").split(","), means, deviations)


def _figures(option: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(figure) for figure in text.split(",")]
    except ValueError as error:
        raise Refused(
            f"bad-{option}", f"--{option} is not a list of numbers: {text!r}.", f"--{option} 0.5,0.5,0.5"
        ) from error


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and 0 < int(height) <= 1024 and 0 < int(width) <= 1024):
        raise Refused("bad-size", f"--size is HEIGHTxWIDTH of 1 to 1024 pixels, not {text!r}.", "--size 32x32")
    return int(height), int(width)
