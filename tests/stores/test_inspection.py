"""`doctor --deep` names each damaged object and no other, and repair then makes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.stores import datasets, uploads
from layerscope.stores.inspection import damaged
from tests.functions.stored_models import Stored, said


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def places(stored: Stored) -> dict[str, tuple[str, str]]:
    """Return an object of each kind: bucket and key."""
    identity = stored.identities[0]
    bucket = stored.bucket(identity)
    upload = uploads.current(stored.store, identity)
    description = datasets.describe(stored.store, "tiny")
    assert upload is not None and description is not None
    manifest = manifest_key(LayerVectors, bucket.facts)
    bucket.fail(LayerVectors)
    complete = Manifest.from_bytes(stored.store.get(keys.PRODUCTS, manifest))
    return {
        "record": (keys.PRODUCTS, upload.record_key),
        "manifest": (keys.PRODUCTS, manifest),
        "failure": (keys.PRODUCTS, keys.failure(manifest)),
        "blob": (keys.PRODUCTS, keys.blob(complete.file("cka.npy").sha256)),
        "description": (keys.DATASETS, keys.dataset_description("tiny")),
        "part": (keys.DATASETS, keys.dataset_part("tiny", description.parts["test"].sha256)),
    }


def test_of_a_sound_store_nothing_is_said(stored: Stored) -> None:
    places(stored)
    assert list(damaged(stored.store)) == []


@pytest.mark.parametrize("kind", ["record", "manifest", "failure", "blob", "description", "part"])
@pytest.mark.parametrize("how", ["empty", "cut short", "other bytes", "not to be had"])
def test_what_is_damaged_is_named(stored: Stored, kind: str, how: str) -> None:
    bucket, key = places(stored)[kind]
    good = stored.store.get(bucket, key)
    if how == "not to be had" and kind == "description":
        return  # of which the rest depends
    bad = {"empty": b"", "cut short": good[:-1], "other bytes": b"X" * len(good)}.get(how)
    if bad is None:
        stored.store.unreadable.add(key)
    else:
        stored.store.put(bucket, key, bad)
    (found,) = damaged(stored.store)
    assert (found.bucket, found.key) == (bucket, key)
    assert ("datasets add" in found.mended_by) == (bucket == keys.DATASETS)


def test_a_blob_of_the_right_size_and_other_bytes_is_made_again_after_it(stored: Stored) -> None:
    bucket, key = places(stored)["blob"]
    stored.store.put(bucket, key, b"X" * len(stored.store.get(bucket, key)))
    stored.index(*stored.identities)
    assert "blob lost" not in {one.reason for one in stored.missing(thorough=True)}
    list(damaged(stored.store))
    stored.store.remove(keys.PRODUCTS, places(stored)["failure"][1])
    stored.index(*stored.identities)
    assert said(stored.missing(thorough=True)) == [("layer_vectors", stored.identities[0].subject, "blob lost")]


def test_a_store_that_is_down_is_not_sound(stored: Stored) -> None:
    stored.store.is_down = True
    with pytest.raises(Unavailable):
        list(damaged(stored.store))
