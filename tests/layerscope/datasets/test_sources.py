"""The three ways to add a dataset: each is told apart, and an option that belongs to another one is refused."""

from pathlib import Path
from typing import Any

import pytest

from layerscope.datasets import sources
from layerscope.datasets.sources import APPLYING
from layerscope.schemas.errors import Refused
from layerscope.stores.directory_store import DirectoryStore

VALUES: dict[str, Any] = {
    "--size": "8x8",
    "--classes": "a,b",
    "--train": Path("train.npz"),
    "--probe": Path("probe.npz"),
    "--mean": "0.5",
    "--std": "0.5",
    "--download": True,
}


def add(folder: Path, way: str, **options: Any) -> None:
    given = {"root": None, "folder": None, "size": None, "classes": None, "mean": None, "std": None, "download": None}
    files: dict[Any, Path] = {"test": folder / "test.npz"} if way == "--test" else {}
    if way != "--test":
        given[way.removeprefix("--")] = folder / "nowhere"
    for option, value in options.items():
        if option in ("train", "probe"):
            files[option] = value
        else:
            given[option] = value
    sources.add(DirectoryStore(folder), "mnist", files, **given, say=lambda _: None)


@pytest.mark.parametrize("way", APPLYING)
@pytest.mark.parametrize("option", VALUES)
def test_an_option_of_another_way_is_refused_and_one_of_this_way_is_not(tmp_path: Path, way: str, option: str) -> None:
    with pytest.raises(Exception) as caught:  # there are no such files, which is found out later
        add(tmp_path, way, **{option.removeprefix("--"): VALUES[option]})
    idle = isinstance(caught.value, Refused) and caught.value.code == "idle-option"
    assert idle == (option not in APPLYING[way])
    if idle:
        assert f"{option} does not go with {way}, but with --" in str(caught.value)
