"""The names of datasets, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.schemas import keys
from layerscope.stores.dataset_names import dataset_names, no_dataset
from layerscope.stores.directory_store import DirectoryStore
from tests.functions.bucket import add_dataset


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    made = DirectoryStore(tmp_path)
    made.ensure_buckets()
    for name in ("mnist", "fashion-mnist", "cifar10"):
        add_dataset(made, name)
    made.put(keys.DATASETS, "begun/0123.npz", b"no description yet")
    return made


def test_a_dataset_is_there_once_it_is_described(store: DirectoryStore) -> None:
    assert dataset_names(store) == ["cifar10", "fashion-mnist", "mnist"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("mnsit", "mnist"), ("MNIST-1", None), ("fashionmnist", "fashion-mnist"), ("cifar-10", "cifar10")],
)
def test_a_misspelt_name_is_answered_with_the_one_that_is_there(
    store: DirectoryStore, name: str, meant: str | None
) -> None:
    said = no_dataset(store, name, ", so nothing can be run")
    assert said.message == f"There is no dataset {name!r}, so nothing can be run."
    assert said.hint.endswith(f"layerscope datasets add {name} --test test.npz --classes a,b,c")
    asked = f"did you mean {meant}? Then upload it as {meant}/MODEL/VERSION; or: "
    assert said.hint.startswith(asked) is (meant is not None)


def test_a_dataset_that_cannot_be_read_is_not_said_to_have_been_meant(store: DirectoryStore) -> None:
    store.put(keys.DATASETS, keys.dataset_description("cifar10"), b"{")
    assert "did you mean" not in no_dataset(store, "cifar10").hint


def test_of_a_name_that_is_like_none_nothing_is_guessed(store: DirectoryStore) -> None:
    assert "did you mean" not in no_dataset(store, "traffic-signs").hint
