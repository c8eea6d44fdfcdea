"""A damaged object of one model makes that outcome missing, and stops the repair of no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from layerscope.events.cloudevent import compose
from layerscope.functions.admit.func import Admit
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.events import ModelUploaded
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest, RefusedKey
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import blobs, catalogue, datasets, uploads
from layerscope.stores.outcomes.known import KnownOutcomes
from tests.functions.bucket import add_dataset
from tests.functions.stored_models import Stored, said

BAD = [b"", b"{", b'{"dataset": "tiny"', b"\x00\xff", b'{"schema": 99}']


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def unread(stored: Stored) -> Identity:
    """Put an upload that nobody was told of: what a sweep has to find whatever else there is."""
    identity = Identity("tiny", "net", "new")
    stored.bucket(identity).put()
    return identity


def test_of_settled_models_nothing_is_missing(stored: Stored) -> None:
    assert stored.missing() == []
    assert stored.missing(thorough=True) == []


@pytest.mark.parametrize("content", BAD)
def test_an_unreadable_upload_record_is_missing_and_stops_nothing(stored: Stored, content: bytes) -> None:
    damaged, new = stored.identities[0], unread(stored)
    upload = uploads.current(stored.store, damaged)
    assert upload is not None
    stored.store.put(keys.PRODUCTS, upload.record_key, content)
    found = [one for one in said(stored.missing()) if one[0] == "admit"]
    assert found == [
        ("admit", damaged.subject, "unreadable record"),
        ("admit", new.subject, "never read"),
    ]


@pytest.mark.parametrize("content", BAD)
@pytest.mark.parametrize("product", [Predictions, LayerVectors])
def test_an_unreadable_manifest_is_missing_and_stops_nothing(
    stored: Stored, content: bytes, product: type[Predictions | LayerVectors]
) -> None:
    damaged, new = stored.identities[1], unread(stored)
    stored.store.put(keys.PRODUCTS, manifest_key(product, stored.bucket(damaged).facts), content)
    found = said(stored.missing(thorough=True))
    assert (product.declared.name, damaged.subject, "unreadable manifest") in found
    assert ("admit", new.subject, "never read") in found


def test_a_manifest_of_something_else_is_not_the_one_that_belongs_there(stored: Stored) -> None:
    first, second = stored.identities[:2]
    key = manifest_key(LayerVectors, stored.bucket(first).facts)
    other = manifest_key(LayerVectors, stored.bucket(second).facts)
    stored.store.put(keys.PRODUCTS, key, stored.store.get(keys.PRODUCTS, other))
    assert ("layer_vectors", first.subject, "unreadable manifest") in said(stored.missing(thorough=True))


def test_a_cache_of_what_was_read_does_not_go_stale(stored: Stored) -> None:
    known = KnownOutcomes()
    assert stored.missing(known, thorough=True) == []
    key = manifest_key(Predictions, stored.bucket(stored.identities[0]).facts)
    good = stored.store.get(keys.PRODUCTS, key)
    stored.store.put(keys.PRODUCTS, key, b"{")
    assert [one.function for one in stored.missing(known)] == ["predictions"]
    stored.store.put(keys.PRODUCTS, key, good)
    assert stored.missing(known) == []


@pytest.mark.parametrize("content", BAD)
def test_an_unreadable_dataset_counts_as_absent_and_stops_nothing(stored: Stored, content: bytes) -> None:
    new = unread(stored)
    stored.store.put(keys.DATASETS, keys.dataset_description("tiny"), content)
    assert ("admit", new.subject, "never read") in said(stored.missing())
    standing = catalogue.standing(stored.store, stored.identities[0])
    assert standing is not None and standing.state == "computing"


@pytest.mark.parametrize("content", BAD)
def test_an_unreadable_failure_counts_as_none(stored: Stored, content: bytes) -> None:
    identity = Identity("tiny", "net", "failed")
    bucket = stored.bucket(identity)
    bucket.put()
    bucket.fail(None)
    assert not [one for one in stored.missing() if one.function == "admit"]
    upload = uploads.current(stored.store, identity)
    assert upload is not None
    stored.store.put(keys.PRODUCTS, keys.failure(upload.record_key), content)
    assert ("admit", identity.subject, "never read") in said(stored.missing())
    standing = catalogue.standing(stored.store, identity)
    assert standing is not None and standing.state == "computing"


@pytest.mark.parametrize("content", BAD)
def test_an_unreadable_refusal_of_a_key_is_missing_and_replaced(stored: Stored, content: bytes) -> None:
    key = "tiny/my net/1.pth"
    stored.store.put(keys.MODELS, key, b"x")
    stored.store.put(keys.PRODUCTS, keys.refused_key(key), content)
    (ask,) = stored.missing()
    assert (ask.function, ask.reason) == ("admit", "unreadable record")
    admit = Admit()
    EventFunction.attach(admit, stored.services)  # without a worker, which a refused key does not need
    event = compose(ModelUploaded(bucket="models", key=key, etag="e"), source="/tests", subject=ask.subject)
    asyncio.run(admit.respond(event))
    assert RefusedKey.from_bytes(stored.store.get(keys.PRODUCTS, keys.refused_key(key))).key == key
    assert stored.missing() == []


def test_a_model_that_the_store_cannot_give_is_passed_over(stored: Stored) -> None:
    upload = uploads.current(stored.store, stored.identities[0])
    assert upload is not None
    stored.store.unreadable.add(upload.record_key)
    new = unread(stored)
    assert ("admit", new.subject, "never read") in said(stored.missing())


def test_a_store_that_is_down_is_no_store_without_models(stored: Stored) -> None:
    stored.store.is_down = True
    with pytest.raises(Unavailable):
        stored.missing()


# Blobs ---------------------------------------------------------------------------------------------------------------


def blob_of(stored: Stored, identity: Identity, product: type[LayerVectors]) -> str:
    manifest = Manifest.from_bytes(
        stored.store.get(keys.PRODUCTS, manifest_key(product, stored.bucket(identity).facts))
    )
    return keys.blob(manifest.file("cka.npy").sha256)  # data.json is the same for all


@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "cut short"])
def test_a_product_without_its_bytes_is_missing(stored: Stored, is_lost: bool) -> None:
    damaged, key = stored.identities[2], blob_of(stored, stored.identities[2], LayerVectors)
    if is_lost:
        stored.store.remove(keys.PRODUCTS, key)
    else:
        stored.store.put(keys.PRODUCTS, key, stored.store.get(keys.PRODUCTS, key)[:-1])
    assert said(stored.missing(thorough=True)) == [("layer_vectors", damaged.subject, "blob lost")]


def test_a_product_made_again_has_its_bytes_and_its_manifest_back(stored: Stored) -> None:
    damaged = stored.identities[2]
    bucket, key = stored.bucket(damaged), blob_of(stored, damaged, LayerVectors)
    manifest = stored.store.get(keys.PRODUCTS, manifest_key(LayerVectors, bucket.facts))
    good = stored.store.get(keys.PRODUCTS, key)
    stored.store.put(keys.PRODUCTS, key, b"X" * len(good))
    bucket.settle(seed=2)
    stored.index(damaged)
    assert stored.store.get(keys.PRODUCTS, key) == good
    assert stored.store.get(keys.PRODUCTS, manifest_key(LayerVectors, bucket.facts)) == manifest
    assert stored.missing(thorough=True) == []


def test_an_upload_whose_safe_form_is_lost_is_read_again(stored: Stored) -> None:
    identity = stored.identities[0]
    record = stored.bucket(identity).record
    content = b"the safe form"
    digest = blobs.sha256(content)
    whole = record.model_copy(update={"content": digest, "content_size": len(content)})
    upload = uploads.current(stored.store, identity)
    assert upload is not None
    stored.store.put(keys.PRODUCTS, upload.record_key, whole.to_bytes())
    blobs.put(stored.store, digest, content)
    assert "admit" not in {one.function for one in stored.missing(thorough=True)}  # others are, at new addresses
    assert uploads.is_whole(stored.store, whole)
    stored.store.remove(keys.PRODUCTS, keys.blob(digest))
    assert ("admit", identity.subject, "blob lost") in said(stored.missing(thorough=True))
    assert not uploads.is_whole(stored.store, whole)


def test_a_dataset_that_cannot_be_read_is_replaced_by_adding_it_again(stored: Stored) -> None:
    before = stored.store.get(keys.DATASETS, keys.dataset_description("tiny"))
    stored.store.put(keys.DATASETS, keys.dataset_description("tiny"), b"{")
    add_dataset(stored.store)
    assert stored.store.get(keys.DATASETS, keys.dataset_description("tiny")) == before
    assert datasets.describe(stored.store, "tiny") is not None
    assert stored.missing() == []
