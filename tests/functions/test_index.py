"""The index is what the bucket says: whatever event comes, in whatever order, however often."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.http import from_request
from layerscope.functions.index import turn
from layerscope.functions.index.func import new
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.schemas import figures, keys
from layerscope.schemas.errors import Refused, Unavailable
from layerscope.schemas.events import EventData, IndexUpdated, ModelRemoved, ProductRequested
from layerscope.schemas.figures import ModelFigures
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.class_vectors import ClassLine, ClassVectors
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores import product_store
from layerscope.stores.cache import MemoryCache
from layerscope.stores.catalogue import Standing, architecture_of, class_collection
from layerscope.stores.index_rows import CatalogueRow, LayerRow, Replacement, RowFilter, collection_name
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import MilvusStore, VectorStore
from tests.functions.bucket import (
    Bucket,
    add_dataset,
    evaluation,
    findings,
    layer_vectors,
    ok_layers,
    services,
    summary,
)
from tests.stores.exact_vector_store import NumpyStore

WHO = Identity("tiny", "net", "1")
OTHER = Identity("tiny", "net", "2")


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    store: VectorStore = NumpyStore()
    if request.param == "file":
        pytest.importorskip("milvus_lite")
        store = MilvusStore(str(tmp_path / "lite" / "index.db"))
    yield store
    store.close()


@pytest.fixture
def given(tmp_path: Path, vectors: VectorStore) -> Services:
    made = services(tmp_path, vectors)
    add_dataset(made.store)
    return made


def about(identity: Identity, data: EventData | None = None) -> CloudEvent:
    who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
    return compose(data or ProductRequested(**who, product="index"), source="/tests", subject=identity.subject)


def posted(given: Services, sent: CloudEvent) -> httpx.Response:
    async def post() -> httpx.Response:
        function = new()
        function.attach(given)
        headers, body = http.to_binary(sent)
        transport = httpx.ASGITransport(app=application(function))
        async with httpx.AsyncClient(transport=transport, base_url="http://index") as client:
            return await client.post("/", headers=headers, content=body)

    return asyncio.run(post())


def told(given: Services, identity: Identity = WHO) -> IndexUpdated:
    answer = posted(given, about(identity))
    assert answer.status_code == 200, answer.text
    event = from_request(answer.headers.raw, answer.content)
    assert (event.type, event.subject) == (IndexUpdated.type, identity.subject)
    return IndexUpdated.model_validate_json(event.data or b"")


def line(given: Services, identity: Identity = WHO) -> CatalogueRow:
    found = given.vectors.line(identity.subject)
    assert found is not None
    return found


def stored(given: Services, product: LayerVectors, metric: str = "cka") -> set[tuple[str, str, float | None]]:
    """Every row of the product's probe set: subject, layer, accuracy."""
    collection = collection_name(metric, product.probe, LayerVectors.declared.recipe)
    dimension = product.grams.shape[1] if metric == "classic" else product.cka.shape[1]
    asked = np.eye(1, dimension, dtype=np.float32)
    (found,) = given.vectors.search(collection, asked, k=500, excluding="")
    return {(one.subject, one.layer, one.test_accuracy) for one in found}


def test_a_complete_model_has_a_row_for_each_layer_and_metric_and_a_catalogue_row(given: Services) -> None:
    product = Bucket(given.store, WHO).settle(seed=1, accuracy=0.75)

    news = told(given)

    expected = {(WHO.subject, layer.id, 0.75) for layer in product.layers}
    assert stored(given, product) == stored(given, product, "deconfounded") == expected
    assert news.rows == 4 * len(product.layers)
    assert line(given).state == "complete"
    assert line(given).test_accuracy == 0.75
    assert line(given).content == Bucket(given.store, WHO).record.content
    assert line(given).fingerprint == news.fingerprint


def test_the_catalogue_has_the_figures_of_the_products_that_are_there(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    bucket.put()
    told(given)
    assert figures.read(line(given).figures) == ModelFigures()
    bucket.admit()
    bucket.write(evaluation(0.75))
    told(given)
    every = len(declared_products())
    first = figures.read(line(given).figures)
    assert (first.accuracy, first.accuracy_low, first.accuracy_high, first.loss) == (0.75, 0.0, 1.0, None)
    assert (first.parameters, first.architecture, first.findings, first.means_something) == (None, None, None, None)
    assert (first.products_complete, first.products, first.has_dataset) == (1, every, True)
    bucket.write(summary())
    bucket.write(findings("channels_dead"))
    no_log = Refused("no-history", "No log of its training was uploaded.", "upload one")
    product_store.refuse(given.store, TrainingHistory, bucket.facts, no_log, bucket.making)
    bucket.refuse_rest()
    told(given)
    last = figures.read(line(given).figures)
    assert (last.parameters, last.multiply_adds, last.architecture) == (1, 3, "Net")
    assert (last.findings, last.first_finding, last.means_something) == (1, "channels_dead", True)
    assert (last.products_complete, last.products) == (3, every - 1)  # it may do without a log


def test_a_model_without_a_dataset_says_so(given: Services) -> None:
    bucket = Bucket(given.store, Identity("tinny", "net", "1"))
    bucket.admit()
    bucket.refuse_rest()
    told(given, bucket.identity)
    found = given.vectors.line(bucket.identity.subject)
    assert found is not None and figures.read(found.figures).has_dataset is False


def test_figures_are_written_as_short_as_they_are_and_a_row_from_before_has_none() -> None:
    some = ModelFigures(accuracy=0.5, products=17, has_dataset=False)
    assert figures.written(some) == '{"accuracy":0.5,"products":17,"has_dataset":false}'
    assert figures.read(figures.written(some)) == some
    assert figures.read("") == ModelFigures() == figures.read(figures.written(ModelFigures()))


def test_classes_have_rows_of_their_own_with_what_is_known_of_the_model(given: Services) -> None:
    bucket, dimension = Bucket(given.store, WHO), 6
    bucket.admit()
    lines = [ClassLine(name=name, state=state, deviation=1.0) for name, state in (("no", "ok"), ("yes", "constant"))]
    bucket.write(
        ClassVectors(
            probe="c" * 64,
            images=dimension,
            output_kind="logits",
            classes=tuple(lines),
            networks=1,
            vectors=np.eye(2, dimension, dtype=np.float32) * np.array([[1], [0]], np.float32),
            untrained=np.zeros((1, 2, dimension), np.float32),
        )
    )

    def rows(**conditions: Any) -> list[tuple[str, str, int, float | None]]:
        asked, where = np.eye(1, dimension, dtype=np.float32), RowFilter(**conditions)
        (found,) = given.vectors.search(class_collection("c" * 64), asked, k=9, excluding="", where=where)
        return [(one.subject, one.layer, one.layer_index, one.test_accuracy) for one in found]

    assert told(given).rows == 1
    assert rows() == [(WHO.subject, "no", 0, None)]
    layers = ok_layers(2)
    bucket.write(layer_vectors(bucket.facts, 1, layers))
    bucket.write(evaluation(0.75))
    assert told(given).rows == 1 + 4 * len(layers)
    assert rows(architecture=architecture_of(layers)) == [(WHO.subject, "no", 0, 0.75)]
    bucket.remove()
    told(given)
    assert rows() == []


def test_layers_that_cannot_be_compared_have_no_rows(given: Services) -> None:
    first, second, third = ok_layers(3)
    layers = [first, second.model_copy(update={"state": "constant"}), third.model_copy(update={"input_like": True})]
    product = Bucket(given.store, WHO).settle(seed=1, layers=layers)
    assert told(given).rows == 6
    assert {layer for _, layer, _ in stored(given, product)} == {first.id, third.id}
    assert {layer for _, layer, _ in stored(given, product, "classic")} == {first.id, third.id}
    assert {layer for _, layer, _ in stored(given, product, "deconfounded")} == {first.id}
    assert {layer for _, layer, _ in stored(given, product, "neighbours")} == {first.id}


def test_rows_come_before_the_evaluation_and_take_its_accuracy_when_it_is_there(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    bucket.admit()
    product = layer_vectors(bucket.facts, 1, ok_layers(2))
    told(given)
    assert (line(given).state, stored(given, product)) == ("computing", set())

    bucket.write(product)
    told(given)
    assert {accuracy for _, _, accuracy in stored(given, product)} == {None}

    bucket.write(evaluation(0.5))
    told(given)
    assert {accuracy for _, _, accuracy in stored(given, product)} == {0.5}
    assert (line(given).state, line(given).test_accuracy) == ("computing", 0.5)

    bucket.refuse_rest()
    told(given)
    assert line(given).state == "complete"


def test_the_same_state_is_the_same_fact_and_moves_the_cache_on(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    bucket.settle(seed=1)
    first = posted(given, about(WHO))
    before = asyncio.run(given.cache.generation())
    again = posted(given, about(WHO))
    assert again.headers["ce-id"] == first.headers["ce-id"]
    assert again.content == first.content
    # A first attempt may have ended between the rows and the cache: the second has to move it on all the same.
    assert asyncio.run(given.cache.generation()) != before


def test_a_new_content_replaces_the_rows_of_the_old(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    old = bucket.settle(seed=1, layers=ok_layers(4))
    told(given)
    bucket.admit(content=b"other weights")
    told(given)
    assert stored(given, old) == set()
    assert (line(given).state, line(given).test_accuracy) == ("computing", None)
    new_product = bucket.settle(seed=2, accuracy=None, layers=ok_layers(2))
    told(given)
    assert stored(given, new_product) == {(WHO.subject, layer.id, None) for layer in new_product.layers}


def test_a_changed_probe_set_moves_the_rows_to_another_collection(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    old = bucket.settle(seed=1)
    told(given)
    add_dataset(given.store, shade=7)
    product = bucket.settle(seed=1)
    told(given)
    assert product.probe != old.probe
    assert stored(given, old) == set()
    assert len(stored(given, product)) == 4


def test_a_removed_model_leaves_the_index_and_others_stay(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    product = bucket.settle(seed=1)
    Bucket(given.store, OTHER).settle(seed=2)
    told(given)
    told(given, OTHER)
    bucket.remove()
    removed = ModelRemoved(bucket="models", key="tiny/net/1.safetensors")
    assert posted(given, about(WHO, removed)).status_code == 200
    assert given.vectors.line(WHO.subject) is None
    assert {subject for subject, _, _ in stored(given, product)} == {OTHER.subject}
    assert told(given).rows == 0  # and once more


def test_states_of_a_model_are_told_as_the_bucket_has_them(given: Services) -> None:
    bucket = Bucket(given.store, WHO)

    bucket.put()
    told(given)
    assert line(given).state == "computing"

    bucket.fail(None)
    told(given)
    assert line(given).state == "failed"

    refusal = Refusal(code="not-a-model", message="This is no model.", hint="layerscope pack")
    bucket.admit(refusal=refusal)
    told(given)
    assert (line(given).state, line(given).refusal, line(given).content) == ("refused", refusal, None)

    bucket.admit(b"a model")
    for product in (one for one in declared_products() if not one.declared.stands_on):
        told(given)
        assert line(given).state == "computing"
        bucket.refuse(product)
    told(given)  # what stands on a refused product is refused without a record of its own
    assert line(given).state == "complete"


def test_a_failed_product_fails_the_model_once_nothing_is_computing(given: Services) -> None:
    bucket = Bucket(given.store, WHO)
    bucket.admit()
    bucket.fail(Predictions)
    told(given)
    assert line(given).state == "computing"
    for product in (one for one in declared_products() if not one.declared.stands_on and one is not Predictions):
        bucket.refuse(product)
    told(given)  # what stands on a failed product has failed with it
    assert line(given).state == "failed"
    bucket.refuse(Predictions)  # an outcome outranks a failure
    told(given)
    assert line(given).state == "complete"


def test_events_that_name_no_model_are_passed_over(given: Services) -> None:
    refused = compose(ModelRemoved(bucket="models", key="x"), source="/tests", subject="_refused/abc")
    answer = posted(given, refused)
    assert (answer.status_code, answer.content) == (204, b"")


class Moving(NumpyStore):
    """An index during whose first write the bucket moves on."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self.bucket = bucket
        self.writes = 0

    def replace(self, wanted: Sequence[Replacement]) -> list[frozenset[str]]:
        self.writes += 1
        if self.writes == 1:
            self.bucket.write(evaluation(0.5))
        return super().replace(wanted)


def test_what_appears_while_it_writes_is_seen_before_it_answers(tmp_path: Path) -> None:
    plain = services(tmp_path)
    add_dataset(plain.store)
    bucket = Bucket(plain.store, WHO)
    bucket.admit()
    product = layer_vectors(bucket.facts, 1, ok_layers(2))
    bucket.write(product)
    given = Services(plain.store, Moving(bucket), MemoryCache(), plain.log, plain.scratch)
    told(given)
    assert {accuracy for _, _, accuracy in stored(given, product)} == {0.5}


class Counting(NumpyStore):
    """An index that counts how often it is written to."""

    writes = 0

    def replace(self, wanted: Sequence[Replacement]) -> list[frozenset[str]]:
        self.writes += 1
        return super().replace(wanted)


def posted_at_once(given: Services, sent: Sequence[CloudEvent]) -> list[httpx.Response]:
    async def post() -> list[httpx.Response]:
        function = new()
        function.attach(given)
        transport = httpx.ASGITransport(app=application(function))
        async with httpx.AsyncClient(transport=transport, base_url="http://index", timeout=None) as client:
            calls = [client.post("/", headers=headers, content=body) for headers, body in map(http.to_binary, sent)]
            return list(await asyncio.gather(*calls))

    return asyncio.run(post())


def test_events_that_wait_are_answered_together_as_each_alone_would_be(tmp_path: Path) -> None:
    plain = services(tmp_path)
    add_dataset(plain.store)
    given = Services(plain.store, Counting(), MemoryCache(), plain.log, plain.scratch)
    who = [Identity("tiny", "net", str(number)) for number in range(30)]
    for at, one in enumerate(who):
        Bucket(given.store, one).settle(seed=at, accuracy=at / 30)
    who.append(Identity("tiny", "net", "was-never"))

    another = ModelRemoved(bucket="models", key="tiny/net/0.safetensors")
    answers = posted_at_once(given, [*map(about, who), about(who[0]), about(who[0], another)])

    assert [one.status_code for one in answers] == [200] * 32 + [204]
    assert answers[31].content == answers[0].content  # the same event, twice
    assert given.vectors.writes <= 2  # type: ignore[attr-defined]  # a first turn may begin before the others have come
    alone = Services(plain.store, NumpyStore(), MemoryCache(), plain.log, plain.scratch)
    for one, answer in zip(who, answers, strict=False):
        told_together = IndexUpdated.model_validate_json(from_request(answer.headers.raw, answer.content).data or b"")
        assert told_together == told(alone, one)
    assert given.vectors.catalogue() == alone.vectors.catalogue()


def test_a_model_whose_rows_cannot_be_stored_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = services(tmp_path)
    add_dataset(given.store)
    for at, one in enumerate((WHO, OTHER)):
        Bucket(given.store, one).settle(seed=at)
    stored = turn.stored_rows

    def unfit(store: ObjectStore, standing: Standing, line: CatalogueRow) -> Mapping[str, Sequence[LayerRow]]:
        rows = stored(store, standing, line)
        if line.subject == OTHER.subject:
            return {name: [replace(row, vector=2 * row.vector) for row in group] for name, group in rows.items()}
        return rows

    monkeypatch.setattr(turn, "stored_rows", unfit)
    fine, bad = posted_at_once(given, [about(WHO), about(OTHER)])
    assert (fine.status_code, bad.status_code) == (200, 500)
    assert line(given).state == "complete"
    assert given.vectors.line(OTHER.subject) is None


def test_damaged_vectors_of_one_model_stop_no_other(given: Services) -> None:
    Bucket(given.store, WHO).settle(seed=1)
    found = Bucket(given.store, OTHER)
    found.settle(seed=2)
    manifest = found.write(layer_vectors(found.facts, 1, ok_layers(4)))
    given.store.put(keys.PRODUCTS, keys.blob(manifest.file("cka.npy").sha256), b"broken")
    fine, damaged = posted_at_once(given, [about(WHO), about(OTHER)])
    assert (fine.status_code, damaged.status_code) == (200, 204)
    assert line(given).state == "complete"
    assert given.vectors.line(OTHER.subject) is None


class Silent(MemoryCache):
    """A cache that is down for who has to change it."""

    async def bump(self, parts: Collection[str] | None = None) -> None:
        raise Unavailable("the cache does not answer")


def test_it_asks_to_be_called_again_while_the_cache_cannot_be_moved_on(tmp_path: Path) -> None:
    plain = services(tmp_path)
    given = Services(plain.store, plain.vectors, Silent(), plain.log, plain.scratch)
    add_dataset(given.store)
    Bucket(given.store, WHO).settle(seed=1)
    assert posted(given, about(WHO)).status_code == 503
    assert posted(plain, about(WHO)).status_code == 200
