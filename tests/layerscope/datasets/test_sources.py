"""The three ways to add a dataset: each is told apart, and an option that belongs to another one is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscope.common_probe_command import advice
from layerscope.datasets import sources
from layerscope.datasets.sources import APPLYING
from layerscope.schemas import keys
from layerscope.schemas.datasets import CommonProbe
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


def test_what_is_added_has_the_common_probe_set_and_is_told_of_where_it_has_no_images_of_it(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "system")
    store.ensure_buckets()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "test.npz", images=pixels, labels=np.arange(40) % 2)
    files: dict[Any, Path] = {"test": tmp_path / "test.npz"}
    nothing = dict.fromkeys(("root", "folder", "size", "mean", "std", "download"))

    def added(name: str) -> CommonProbe:
        made = sources.add(store, name, files, classes="a,b", say=lambda _: None, **nothing)  # type: ignore[arg-type]
        assert made.common is not None
        return made.common

    assert added("first").sources == ("first",)
    store.put(keys.MODELS, "first/net/1.safetensors", b"weights")
    second = added("second")
    assert second.sources == ("first",)
    told = advice(second, "second")
    assert "are from first" in told
    assert "`layerscope datasets renew-common second`" in told


@pytest.mark.parametrize("way", APPLYING)
@pytest.mark.parametrize("option", VALUES)
def test_an_option_of_another_way_is_refused_and_one_of_this_way_is_not(tmp_path: Path, way: str, option: str) -> None:
    with pytest.raises(Exception) as caught:  # there are no such files, which is found out later
        add(tmp_path, way, **{option.removeprefix("--"): VALUES[option]})
    idle = isinstance(caught.value, Refused) and caught.value.code == "idle-option"
    assert idle == (option not in APPLYING[way])
    if idle:
        assert f"{option} does not go with {way}, but with --" in str(caught.value)
