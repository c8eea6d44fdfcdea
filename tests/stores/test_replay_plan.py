"""The plan of a replay: exactly what is missing, why, and what comes of it by itself; selectors combine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from pydantic import ValidationError

from layerscope.functions.replay.missing import missing
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.replays import DeadLetterRecord, Plan, PlanEntry, Selection
from layerscope.stores import dead_letters
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.product_store import Making
from layerscope.stores.replays.plan import plan
from tests.functions.asking import index
from tests.functions.bucket import Bucket, add_dataset, evaluation, services
from tests.stores.described_store import DescribedStore

FIRST = Identity("tiny", "net", "1")
SECOND = Identity("tiny", "net", "2")
OTHER = Identity("tiny", "mlp", "1")
DIRECT = {one.declared.name for one in declared_products() if not one.declared.inputs}
ALL = {one.declared.name for one in declared_products()}


@pytest.fixture
def system(tmp_path: Path) -> Services:
    made = dataclasses.replace(services(tmp_path), store=DescribedStore(tmp_path))
    add_dataset(made.store)
    return made


def settled(system: Services, *identities: Identity) -> None:
    for seed, one in enumerate(identities):
        Bucket(system.store, one).settle(seed)
    index(system, *identities)


def made(system: Services, **selection: Any) -> Plan:
    return plan(system.store, system.vectors, Selection(**selection))


def named(found: Plan) -> set[tuple[str, str]]:
    return {(one.subject, one.function) for one in found.entries}


def entry(found: Plan, function: str, identity: Identity = FIRST) -> PlanEntry:
    (one,) = [one for one in found.entries if (one.subject, one.function) == (identity.subject, function)]
    return one


def asked(found: Plan) -> set[tuple[str, str]]:
    return {(one.function, one.subject) for one in found.entries if not one.follows}


class raised:
    """Raise the recipe of a product, as a release does."""

    def __init__(self, product: type[Any]) -> None:
        declared = dataclasses.replace(product.declared, recipe=product.declared.recipe + 1)
        self._patch = mock.patch.object(product, "declared", declared)

    def __enter__(self) -> None:
        self._patch.start()

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def test_where_everything_is_there_nothing_is_planned_and_nothing_changes(system: Services) -> None:
    settled(system, FIRST, SECOND)
    before = {one.key: one.etag for one in system.store.list(keys.PRODUCTS)}
    found = made(system)
    assert found.entries == ()
    assert found.there == 2 * (1 + len(ALL))
    assert {one.key: one.etag for one in system.store.list(keys.PRODUCTS)} == before


def test_of_a_new_upload_it_is_said_that_nobody_has_read_it(system: Services) -> None:
    Bucket(system.store, FIRST).put()
    found = made(system)
    assert named(found) == {(FIRST.subject, "admit")}
    assert (entry(found, "admit").reason, entry(found, "admit").key) == ("never read", "tiny/net/1.safetensors")


def test_of_an_admitted_model_products_are_asked_for_and_what_stands_on_them_follows(system: Services) -> None:
    Bucket(system.store, FIRST).admit()
    found = made(system)
    assert named(found) == {(FIRST.subject, name) for name in ALL}
    assert {one.function for one in found.entries if not one.follows} == DIRECT
    assert entry(found, "evaluation").stands_on == ("predictions",)
    assert entry(found, "predictions").reason == "never computed"


def states(system: Services) -> Iterator[str]:
    """Bring the system into one state after the other, each of which a round of *missing* has to do with."""
    bucket = Bucket(system.store, FIRST)
    yield "empty"
    bucket.put()
    yield "uploaded"
    bucket.fail(None, "it broke")
    yield "not read, for good"
    bucket.admit()
    yield "admitted"
    bucket.write(evaluation(0.5))
    yield "something that stands on what is not there"
    bucket.refuse(Predictions)
    yield "an input is refused"
    bucket.fail(next(one for one in declared_products() if one.declared.name == "summary"))
    yield "a product failed"
    bucket.refuse_rest()
    yield "complete, rows stale"
    index(system, FIRST)
    yield "complete"
    add_dataset(system.store, shade=4)
    yield "another dataset"
    bucket.remove()
    yield "gone, with rows"
    system.store.put(keys.MODELS, "tiny/a net/1.pth", b"x")
    yield "a key that breaks the rule"
    bucket.admit(refusal=Refusal(code="not-a-model", message="This is no model."))
    yield "refused"
    assert isinstance(system.store, DescribedStore)
    system.store.described[keys.upload(FIRST)] = {"architecture": "resnet18"}
    bucket.admit()
    yield "an architecture is given"
    bucket.write(predictions())
    unreadable = manifest_key(Predictions, bucket.facts)
    system.store.put(keys.PRODUCTS, unreadable, b"")
    yield "a manifest cannot be read"
    bucket.fail(Predictions, ask_again_at=datetime.now(UTC) - timedelta(minutes=1))
    system.store.remove(keys.PRODUCTS, unreadable)
    yield "a failure is due again"


def test_what_is_asked_for_is_what_the_timer_asks_for_in_every_state(system: Services) -> None:
    seen = 0
    for state in states(system):
        timer = {(one.function, one.subject) for one in missing(system.store, system.vectors, KnownOutcomes())}
        mine = asked(made(system))
        with_products = {subject for function, subject in mine if function != "index"}
        expected = {one for one in timer if one[0] != "index" or one[1] not in with_products}
        assert mine == expected, state
        seen += bool(mine)
    assert seen >= 8


def complete(system: Services, identity: Identity, making: Making | None = None) -> None:
    """Give a model every product, by what can be made up; the others are refused."""
    bucket = Bucket(system.store, identity, making or Making())
    bucket.admit(content=identity.subject.encode())
    bucket.write(predictions())
    bucket.write(evaluation(0.5))
    bucket.refuse_rest()


def predictions(images: int = 2) -> Predictions:
    return Predictions(outputs=np.eye(images, dtype=np.float32), output_kind="logits", images=images, non_finite=0)


def test_a_raised_recipe_is_the_reason_and_the_product_above_follows(system: Services) -> None:
    for one in (FIRST, SECOND, OTHER):
        complete(system, one)
    with raised(Predictions):
        found = made(system, products=("predictions",))
        whole = made(system)
    assert asked(found) == {("predictions", one.subject) for one in (FIRST, SECOND, OTHER)}
    assert {one.function for one in found.entries} == {
        "predictions",
        "evaluation",
        "confusion_matrix",
        "example_images",
        "findings",
    }
    assert named(whole) >= named(found)
    assert entry(found, "predictions").reason == "recipe raised from 1 to 2"
    assert entry(found, "evaluation").reason == "stands on predictions, which is not there"
    assert entry(found, "evaluation").follows
    assert len(named(found)) == len(found.entries)  # once a model


def test_what_is_selected_brings_along_what_it_needs(system: Services) -> None:
    Bucket(system.store, FIRST).admit()
    found = made(system, products=("evaluation",))
    assert {(one.function, one.follows) for one in found.entries if one.function != "description"} == {
        ("predictions", False),
        ("evaluation", True),
        ("confusion_matrix", True),
        ("example_images", True),
    }
    assert entry(found, "predictions").reason.endswith(
        "; needed for confusion_matrix and evaluation and example_images"
    )


def test_names_are_selected_by_patterns_and_everything_given_must_hold(system: Services) -> None:
    for one in (FIRST, SECOND, OTHER):
        Bucket(system.store, one).put()

    def subjects(**selection: Any) -> set[str]:
        return {one.subject for one in made(system, **selection).entries}

    assert subjects(models=("n*",)) == {FIRST.subject, SECOND.subject}
    assert subjects(models=("n*",), versions=("2",)) == {SECOND.subject}
    assert subjects(models=("mlp", "net"), versions=("1",)) == {FIRST.subject, OTHER.subject}
    assert subjects(datasets=("tiny",), models=("m?p",)) == {OTHER.subject}
    assert subjects(datasets=("tin",)) == set()
    assert subjects(products=("evaluation",)) == set()


def test_failures_are_left_alone_unless_selected_and_by_reason(system: Services) -> None:
    bucket = Bucket(system.store, FIRST)
    bucket.settle(1)
    index(system, FIRST)
    Bucket(system.store, SECOND).admit()
    Bucket(system.store, SECOND).fail(Predictions, "CUDA out of memory")
    assert "predictions" not in {one.function for one in made(system).entries}
    found = made(system, states=("failed",))
    assert asked(found) == {("predictions", SECOND.subject)}
    assert entry(found, "predictions", SECOND).reason == "failed: CUDA out of memory"
    assert entry(found, "predictions", SECOND).failure
    assert {one.function for one in found.entries} >= {"evaluation", "confusion_matrix"}
    assert asked(made(system, states=("failed",), reasons=("cuda", "nothing"))) == {("predictions", SECOND.subject)}
    assert named(made(system, states=("failed",), reasons=("signal",))) == set()
    assert (
        named(made(system, states=("missing", "failed"), reasons=("signal",))) == set()
    )  # what is missing has no reason


def test_what_stands_on_a_failure_is_not_planned_without_it(system: Services) -> None:
    bucket = Bucket(system.store, FIRST)
    bucket.admit()
    bucket.fail(Predictions)
    assert not {one.function for one in made(system, products=("evaluation",)).entries}


def letter(function: str, identity: Identity, reason: str = "it broke", event: str = "e1") -> DeadLetterRecord:
    now = datetime.now(UTC)
    return DeadLetterRecord(
        id=dead_letters.identifier(event, function),
        function=function,
        subject=identity.subject,
        type="io.layerscope.product.requested.v1",
        reason=reason,
        first=now,
        last=now,
    )


def test_dead_letters_lead_to_what_they_were_about_and_is_not_there(system: Services) -> None:
    Bucket(system.store, FIRST).admit()
    Bucket(system.store, FIRST).fail(Predictions)
    Bucket(system.store, SECOND).settle(2)
    about = [letter("predictions", FIRST), letter("summary", FIRST, "no answer", "e2"), letter("summary", SECOND)]
    for one in about:
        dead_letters.record(system.store, one)
    assert asked(made(system, states=("dead-letter",))) == {("predictions", FIRST.subject), ("summary", FIRST.subject)}
    assert asked(made(system, states=("dead-letter",), reasons=("no ans",))) == {("summary", FIRST.subject)}
    assert asked(made(system, states=("dead-letter",), letters=(about[0].id,))) == {("predictions", FIRST.subject)}
    dead_letters.discard(system.store, about[0], "the model is broken")
    assert asked(made(system, states=("dead-letter",))) == {("summary", FIRST.subject)}


def test_windows_of_time_hold_for_the_upload_and_for_what_is_stored(system: Services) -> None:
    complete(system, FIRST)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    with raised(Predictions):
        inside = asked(made(system, products=("predictions",), computed_since=now - hour, computed_until=now + hour))
        assert inside == {("predictions", FIRST.subject)}
        assert not made(system, products=("predictions",), computed_since=now + hour).entries
        assert not made(system, products=("predictions",), computed_until=now - hour).entries
        assert made(system, products=("predictions",), uploaded_since=now - hour).entries
        assert not made(system, products=("predictions",), uploaded_until=now - hour).entries


def test_what_an_older_recipe_made_is_selected_by_it(system: Services) -> None:
    complete(system, FIRST)
    Bucket(system.store, SECOND).admit(content=b"others")
    with raised(Predictions):
        assert asked(made(system, products=("predictions",), recipe_older_than=2)) == {("predictions", FIRST.subject)}
        assert not made(system, products=("predictions",), recipe_older_than=1).entries


def test_expected_seconds_are_the_median_of_the_model_and_else_of_the_product(system: Services) -> None:
    for seconds, one in ((2.0, FIRST), (4.0, SECOND), (60.0, OTHER)):
        complete(system, one, Making(seconds=seconds))
    new = Identity("tiny", "vit", "1")
    Bucket(system.store, new).admit(content=b"new")
    with raised(Predictions):
        found = made(system, products=("predictions",))
    assert entry(found, "predictions", FIRST).seconds == 3.0
    assert entry(found, "predictions", OTHER).seconds == 60.0
    assert entry(found, "predictions", new).seconds == 4.0
    assert entry(found, "confusion_matrix", FIRST).seconds is None  # none was ever complete
    assert found.seconds >= 3 + 3 + 60 + 4
    assert found.unknown >= 1


def test_the_digest_moves_with_what_is_to_be_made_and_with_nothing_else(system: Services) -> None:
    Bucket(system.store, FIRST).admit()
    first = made(system).digest
    assert made(system).digest == first
    Bucket(system.store, SECOND).put()
    moved = made(system).digest
    assert moved != first
    assert made(system, models=("net",)).digest != moved  # another selection, though the same is to be made


def test_a_record_that_cannot_be_read_stops_nobody_else(system: Services) -> None:
    for one in (FIRST, SECOND):
        Bucket(system.store, one).admit()
    (damaged,) = [one.key for one in system.store.list(keys.PRODUCTS, keys.uploads_of(FIRST))]
    system.store.put(keys.PRODUCTS, damaged, b"")
    found = made(system)
    assert entry(found, "admit", FIRST).reason == "unreadable record"
    assert ("tiny/net/2", "predictions") in named(found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"uploaded_since": datetime(2026, 1, 1)}, "needs a time zone"),
        ({"models": ("a/b",)}, "String should match pattern"),
        ({"states": ("lost",)}, "Input should be"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Selection(**given)


def refused(system: Services, identity: Identity, code: str) -> Bucket:
    bucket = Bucket(system.store, identity)
    bucket.admit(refusal=Refusal(code=code, message="This is no model."))
    return bucket


def test_uploads_that_were_refused_are_selected_by_their_code_and_read_once_more(system: Services) -> None:
    settled(system, OTHER)
    refused(system, FIRST, "not-a-model")
    refused(system, SECOND, "no-such-model")
    found = made(system, force=True, refusals=("not-a-model",))
    assert named(found) == {(FIRST.subject, "admit")}
    (one,) = found.entries
    there = system.store.head(keys.PRODUCTS, one.outcome)
    assert there is not None
    assert (one.refusal, one.key, one.beside, one.follows) == (there.etag, keys.upload(FIRST), False, False)
    assert one.reason == "it was refused (not-a-model): read once more"
    both = made(system, force=True, refusals=("not-a-model", "no-such-model"))
    assert named(both) == {(FIRST.subject, "admit"), (SECOND.subject, "admit")}
    assert named(made(system, force=True, refusals=("not-for-it",))) == {
        (OTHER.subject, name) for name in ALL - {"layer_vectors"}
    }


def test_with_force_the_reading_of_uploads_is_that_of_the_refused_alone(system: Services) -> None:
    settled(system, OTHER)
    refused(system, FIRST, "not-a-model")
    assert named(made(system, force=True, products=("admit",))) == {(FIRST.subject, "admit")}
    assert named(made(system, force=True, products=("admit",), versions=("2",))) == set()
    assert (
        named(made(system, force=True, products=("admit",), uploaded_until=datetime(2020, 1, 1, tzinfo=UTC))) == set()
    )
    assert named(made(system, force=True)) == {(OTHER.subject, name) for name in ALL}
    assert named(made(system, force=True, products=("summary",), refusals=("not-a-model",))) == set()


def test_a_refusal_that_was_written_again_is_another_plan(system: Services) -> None:
    bucket = refused(system, FIRST, "not-a-model")
    before = made(system, force=True, products=("admit",)).digest
    assert made(system, force=True, products=("admit",)).digest == before
    bucket.admit(refusal=Refusal(code="not-a-model", message="This is still no model."))
    assert made(system, force=True, products=("admit",)).digest != before
