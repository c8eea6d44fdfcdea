"""A round of repair costs what changed, and still everything is found: at once, or within the hour where only a sweep can."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from layerscope.functions.replay import rounds
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure, Manifest
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import catalogue, uploads
from layerscope.stores.index_rows import Replacement
from tests.functions.bucket import add_dataset, layer_vectors, ok_layers
from tests.functions.stored_models import Stored, said
from tests.stores.exact_vector_store import NumpyStore

NEW = Identity("tiny", "net", "new")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def asked(stored: Stored) -> list[tuple[str, str, str]]:
    return [one for one in said(stored.round()) if one[0] != "index"]


def test_of_settled_models_nothing_is_asked_for_in_an_hour(stored: Stored) -> None:
    stored.settle_rounds()


def test_a_quiet_round_asks_the_store_a_few_lists_and_nothing_about_each_model(tmp_path: Path) -> None:
    cost = []
    for models in (2, 40):
        stored = Stored(tmp_path / str(models), models)
        stored.settle_rounds()
        stored.store.requests.clear()
        for _ in range(rounds.SLICES):
            assert stored.round() == []
        assert set(stored.store.requests) == {"list"}
        cost.append(stored.store.requests["list"])
    assert cost[0] <= cost[1] <= cost[0] + 2 * rounds.SLICES  # slices that were empty, and are not


def test_an_upload_whose_notification_was_lost_is_asked_for_in_the_next_round(stored: Stored) -> None:
    stored.settle_rounds()
    stored.bucket(NEW).put()
    assert asked(stored) == [("admit", NEW.subject, "never read")]


def test_it_is_asked_for_until_it_is_there(stored: Stored) -> None:
    stored.settle_rounds()
    stored.bucket(NEW).put()
    for _ in range(5):
        assert asked(stored) == [("admit", NEW.subject, "never read")]
    stored.bucket(NEW).settle(99)
    stored.index(NEW)
    stored.settle_rounds()


@pytest.mark.parametrize("rounds_before", [0, 1, 7])
def test_a_process_that_was_killed_is_followed_by_one_that_asks_within_two_rounds(
    stored: Stored, rounds_before: int
) -> None:
    for _ in range(rounds_before):
        stored.round()
    stored.bucket(NEW).put()
    stored.rounds.asks(stored.store, stored.vectors)  # and is killed before it has published anything
    stored.rounds = stored.started()
    assert ("admit", NEW.subject, "never read") in asked(stored) + asked(stored)


def test_what_is_not_read_or_not_complete_comes_first_after_a_start(stored: Stored) -> None:
    incomplete = stored.identities[2]  # the newest, and the last in a list
    stored.store.remove(keys.PRODUCTS, manifest_key(LayerVectors, stored.bucket(incomplete).facts))
    stored.bucket(NEW).put()
    stored.rounds = stored.started(most=1)
    assert asked(stored) == [
        ("admit", NEW.subject, "never read"),
        ("layer_vectors", incomplete.subject, "never computed"),
    ]


def test_a_store_that_goes_down_in_the_middle_costs_nothing_but_the_round(stored: Stored) -> None:
    stored.settle_rounds()
    stored.bucket(NEW).put()
    asked_before = stored.store.requests.total()
    stored.round()
    whole = stored.store.requests.total() - asked_before
    for after in range(whole):
        fresh = stored.started()
        stored.store.answers = after
        with pytest.raises(Unavailable):
            fresh.asks(stored.store, stored.vectors)
        stored.store.answers = math.inf
        found = said([*fresh.asks(stored.store, stored.vectors), *fresh.asks(stored.store, stored.vectors)])
        assert ("admit", NEW.subject, "never read") in found


def test_an_upload_that_was_replaced_or_removed_is_followed(stored: Stored) -> None:
    stored.settle_rounds()
    replaced, removed = stored.identities[:2]
    stored.bucket(replaced).put(b"other weights")
    stored.bucket(removed).remove()
    assert said(stored.round()) == [
        ("admit", replaced.subject, "the upload, or a sidecar of it, changed"),
        ("index", replaced.subject, "its rows are not what the bucket says"),
        ("index", removed.subject, "it is no longer there"),
    ]
    stored.bucket(replaced).settle(50)
    stored.index(replaced, removed)
    stored.settle_rounds()


def test_a_changed_dataset_is_followed(stored: Stored) -> None:
    stored.settle_rounds()
    add_dataset(stored.store, shade=1)
    found = asked(stored)
    assert {one[1] for one in found} == {one.subject for one in stored.identities}
    assert {one[2] for one in found if one[0] == "layer_vectors"} == {"dataset changed"}


def test_a_failure_is_asked_for_again_when_it_is_due(stored: Stored) -> None:
    identity = stored.identities[0]
    facts = stored.bucket(identity).facts
    outcome = manifest_key(LayerVectors, facts)
    stored.store.remove(keys.PRODUCTS, outcome)
    stored.bucket(identity).fail(LayerVectors, "the node was out of memory")
    read = Failure.from_bytes(stored.store.get(keys.PRODUCTS, keys.failure(outcome)))
    due = stored.now + timedelta(minutes=30)
    stored.store.put(keys.PRODUCTS, keys.failure(outcome), read.model_copy(update={"ask_again_at": due}).to_bytes())
    stored.index(identity)
    stored.rounds = stored.started()
    while stored.now + timedelta(minutes=1) < due:
        assert stored.round() == []
    assert asked(stored) == [("layer_vectors", identity.subject, "failed: the node was out of memory, due again")]


def test_an_index_that_was_lost_is_found_in_the_next_round(stored: Stored) -> None:
    stored.settle_rounds()
    stored.vectors = NumpyStore()
    assert said(stored.round()) == [
        ("index", one.subject, "its rows are not what the bucket says") for one in stored.identities
    ]


def test_one_row_that_was_lost_is_found_within_the_hour(stored: Stored) -> None:
    stored.settle_rounds()
    stored.vectors.replace([Replacement(stored.identities[1].subject, {}, None)])
    found = [one for _ in range(rounds.SLICES) for one in stored.round()]
    assert ("index", stored.identities[1].subject, "its rows are not what the bucket says") in said(found)


@pytest.mark.parametrize("damage", ["manifest lost", "manifest cut short", "blob lost", "blob cut short"])
def test_damage_to_what_was_settled_is_found_within_the_hour(stored: Stored, damage: str) -> None:
    stored.settle_rounds()
    identity = stored.identities[1]
    key = manifest_key(LayerVectors, stored.bucket(identity).facts)
    if damage.startswith("blob"):
        manifest = Manifest.from_bytes(stored.store.get(keys.PRODUCTS, key))
        key = keys.blob(manifest.file("cka.npy").sha256)
    if damage.endswith("lost"):
        stored.store.remove(keys.PRODUCTS, key)
    else:
        stored.store.put(keys.PRODUCTS, key, stored.store.get(keys.PRODUCTS, key)[:-10])
    found = {one for _ in range(rounds.SLICES) for one in said(stored.round())}
    reasons = {"manifest lost": "never computed", "manifest cut short": "unreadable manifest"}
    assert ("layer_vectors", identity.subject, reasons.get(damage, "blob lost")) in found
    assert {one[1] for one in found} == {identity.subject}
    # And once it is made again, there is rest
    stored.bucket(identity).write(remade(stored, identity))
    stored.index(identity)
    stored.settle_rounds()


def remade(stored: Stored, identity: Identity) -> LayerVectors:
    return layer_vectors(stored.bucket(identity).facts, stored.identities.index(identity), ok_layers(4))


def test_an_input_whose_bytes_are_lost_is_found_when_what_stands_on_it_is_asked_for_in_vain(tmp_path: Path) -> None:
    stored = Stored(tmp_path, 0)
    bucket = stored.bucket(NEW)
    bucket.admit()
    made = Predictions(outputs=np.zeros((6, 2), np.float32), output_kind="logits", images=6, non_finite=0)
    manifest = bucket.write(made)
    stored.store.remove(keys.PRODUCTS, keys.blob(manifest.files[0].sha256))
    found = [one for _ in range(3) for one in asked(stored)]
    assert ("predictions", NEW.subject, "blob lost") in found


def test_a_row_that_says_computing_of_a_settled_model_is_stale(stored: Stored) -> None:
    identity = stored.identities[0]
    key = manifest_key(LayerVectors, stored.bucket(identity).facts)
    good = stored.store.get(keys.PRODUCTS, key)
    stored.store.put(keys.PRODUCTS, key, b"{")
    stored.index(identity)
    stored.store.put(keys.PRODUCTS, key, good)
    assert catalogue.standing(stored.store, identity) is not None
    assert said(stored.missing()) == [("index", identity.subject, "its rows are not what the bucket says")]


# The same bytes with other metadata ----------------------------------------------------------------------------------


def test_the_same_bytes_said_to_be_something_else_are_another_upload(stored: Stored) -> None:
    stored.settle_rounds()
    identity = stored.identities[0]
    plain = uploads.current(stored.store, identity)
    assert plain is not None
    content = stored.store.get(keys.MODELS, plain.key)
    stored.store.put(keys.MODELS, plain.key, content, metadata={"architecture": "lenet"})
    named = uploads.current(stored.store, identity)
    assert named is not None
    assert (named.etag, named.record_key == plain.record_key) == (plain.etag, False)
    assert asked(stored) == [("admit", identity.subject, "the upload, or a sidecar of it, changed")]
    assert [one.function for one in stored.missing() if one.function != "index"] == ["admit"]
    # And back again nothing is read anew
    stored.store.put(keys.MODELS, plain.key, content)
    assert asked(stored) == []
    assert [one for one in stored.missing() if one.function != "index"] == []


def test_the_address_of_an_upload_without_such_metadata_is_as_ever() -> None:
    key = keys.upload_record(Identity("d", "m", "1"), 2, "e50eb7598b580311bab8f39bb8f4815b", {"history": "abc"})
    assert key == "uploads/d/m/1/r2-47f055a2af4e6171f5f608b988581f19.json"
    assert (
        keys.upload_record(Identity("d", "m", "1"), 2, "e50eb7598b580311bab8f39bb8f4815b", {"history": "abc"}, {})
        == key
    )


def test_a_record_of_an_earlier_version_is_of_the_upload_whose_metadata_it_names(stored: Stored) -> None:
    identity = stored.identities[0]
    plain = uploads.current(stored.store, identity)
    assert plain is not None
    record = stored.bucket(identity).record.model_copy(update={"architecture_given": "lenet"})
    stored.store.put(keys.PRODUCTS, plain.record_key, record.to_bytes())
    assert uploads.record(stored.store, plain) is None  # it was read as what it is no longer said to be
    content = stored.store.get(keys.MODELS, plain.key)
    stored.store.put(keys.MODELS, plain.key, content, metadata={"architecture": "lenet"})
    named = uploads.current(stored.store, identity)
    assert named is not None
    assert uploads.earlier_record(stored.store, named, "lenet") == record
    assert uploads.earlier_record(stored.store, named, "resnet18") is None
