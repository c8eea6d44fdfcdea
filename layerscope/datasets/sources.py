"""Which of the three ways to add a dataset is meant: by its name, from folders of pictures, or from arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from layerscope.datasets import arrays, image_folders
from layerscope.datasets.torchvision_readers import STANDARD
from layerscope.datasets.torchvision_readers import add as add_standard
from layerscope.schemas.datasets import DatasetDescription, PartName
from layerscope.schemas.errors import Refused
from layerscope.stores import common_probe, datasets
from layerscope.stores.object_store import ObjectStore

APPLYING: Final[Mapping[str, frozenset[str]]] = {
    "--root": frozenset({"--download"}),
    "--folder": frozenset({"--size", "--mean", "--std"}),
    "--test": frozenset({"--classes", "--train", "--probe", "--mean", "--std"}),
}
"""Which options go with each way."""
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
    download: bool | None,
    say: Callable[[str], None],
) -> DatasetDescription:
    """Add a dataset from what the command line was given, with the common probe set of its shape.

    Raises:
        Refused: that is not one whole way.
    """
    if [root is not None, folder is not None, "test" in files].count(True) != 1:
        raise Refused("which-dataset", "Say where the dataset is, in one way.", _WAYS)
    _check_options(
        "--root" if root is not None else "--folder" if folder is not None else "--test",
        {
            "--size": size,
            "--classes": classes,
            "--train": files.get("train"),
            "--probe": files.get("probe"),
            "--mean": mean,
            "--std": std,
            "--download": download,
        },
    )
    means, deviations = _figures("mean", mean), _figures("std", std)
    if root is not None:
        if name not in STANDARD:
            raise Refused("unknown-dataset", f"--root goes with {', '.join(STANDARD)}, not with {name!r}.", _WAYS)
        made = add_standard(store, name, root, download=download is not False, say=say)
    elif folder is not None:
        made = image_folders.add(store, name, folder, _size(size), means, deviations, say)
    else:
        made = arrays.add(store, name, files, (classes or "").split(","), means, deviations)
    common_probe.ensure(store)
    return datasets.describe(store, name) or made


def _check_options(way: str, given: Mapping[str, object]) -> None:
    if idle := [option for option, value in given.items() if value is not None and option not in APPLYING[way]]:
        applying = " and ".join(one for one, options in APPLYING.items() if idle[0] in options)
        raise Refused("idle-option", f"{idle[0]} does not go with {way}, but with {applying}.", _WAYS)


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
