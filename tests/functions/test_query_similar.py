"""Which layers are told to be alike, and how rarely the index is asked for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.stores.vector_store import MilvusStore, VectorStore
from tests.functions.asking import (
    LAYER,
    OTHERS,
    WHO,
    Counting,
    Down,
    Poisoned,
    answers_made,
    four,
    get,
    index,
    run,
    settle,
    similar,
    with_cache,
)
from tests.functions.bucket import IMAGES, Bucket, add_dataset, ok_layers, services
from tests.stores.exact_vector_store import NumpyStore

pytestmark = pytest.mark.slow


@pytest.fixture
def vectors() -> Counting:
    return Counting()


@pytest.fixture
def given_services(tmp_path: Path, vectors: Counting) -> Services:
    made = services(tmp_path, vectors)
    add_dataset(made.store)
    return made


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
def compared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Services]:
    store: VectorStore = NumpyStore()
    if request.param == "file":
        pytest.importorskip("milvus_lite")
        store = MilvusStore(str(tmp_path / "lite" / "index.db"))
    made = services(tmp_path, store)
    add_dataset(made.store)
    yield made
    store.close()


@pytest.mark.parametrize("metric", ["deconfounded", "cka"])
def test_similar_layers_are_those_of_the_largest_products(compared: Services, metric: str) -> None:
    products = four(compared)
    for position, layer in enumerate(products[WHO].layers[:2]):
        told = get(compared, similar(layer.id), metric=metric, k=5)
        mine = getattr(products[WHO], metric)[position].astype(np.float64)
        scored = [
            (float(mine @ getattr(product, metric)[at].astype(np.float64)), one, other.id)
            for one, product in products.items()
            if one != WHO
            for at, other in enumerate(product.layers)
        ]
        expected = sorted(scored, key=lambda hit: -hit[0])[:5]
        hits = told["hits"]
        assert [(Identity(h["dataset"], h["model"], h["version"]), h["layer"]) for h in hits] == [
            (one, name) for _, one, name in expected
        ]
        assert np.allclose([h["score"] for h in hits], [score for score, _, _ in expected], atol=2e-6)
        deviation = math.sqrt(2 / (IMAGES * (IMAGES - 3)))
        assert np.allclose([h["z"] for h in hits], [score / deviation for score, _, _ in expected], atol=0.006)
        assert {h["version"]: h["test_accuracy"] for h in hits if h["model"] == "net"} in ({}, {"2": 0.9})
        assert (told["layer"], told["metric"], told["reason"]) == (layer.id, metric, None)


def test_hits_can_be_asked_of_accurate_models_only(given_services: Services) -> None:
    four(given_services)
    hits = get(given_services, similar(), min_accuracy=0.7, k=100)["hits"]
    assert {(hit["model"], hit["test_accuracy"]) for hit in hits} == {("net", 0.9), ("vit", 0.7)}


def test_models_on_other_probe_sets_are_never_compared(given_services: Services) -> None:
    add_dataset(given_services.store, "other", shade=5)
    settle(given_services, {WHO: 0.5, Identity("other", "net", "1"): 0.5})
    assert get(given_services, similar())["hits"] == []


@pytest.mark.parametrize(
    ("change", "metric", "word"),
    [
        ({"input_like": True}, "deconfounded", "metric=cka"),
        ({"state": "constant"}, "cka", "alike"),
        ({"state": "non_finite"}, "cka", "finite"),
        ({"state": "unbatched"}, "cka", "compared"),
    ],
)
def test_a_layer_that_cannot_be_compared_says_why(
    given_services: Services, change: dict[str, Any], metric: str, word: str
) -> None:
    first, *rest = ok_layers(3)
    Bucket(given_services.store, WHO).settle(seed=1, layers=[first.model_copy(update=change), *rest])
    index(given_services, WHO)
    told = get(given_services, similar(first.id), metric=metric)
    assert told["hits"] == []
    assert word in told["reason"]
    assert "yet" not in told["reason"]


def test_a_model_without_layers_says_why(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    assert get(given_services, similar(), 404)["code"] == "no-such-model"

    def reason() -> Any:
        index(given_services, WHO)
        return get(given_services, similar())["reason"]

    bucket.put()
    assert "still" in reason()
    bucket.admit(refusal=Refusal(code="not-a-model", message="This is no model."))
    assert "not admitted" in reason()
    bucket.admit(b"a model")
    assert "still" in reason()
    bucket.fail(LayerVectors, reason="it broke")
    assert "it broke" in reason()
    bucket.refuse(LayerVectors)
    assert "cannot have" in reason()


def test_rows_of_an_earlier_upload_are_not_taken_for_the_present_ones(given_services: Services) -> None:
    four(given_services)
    Bucket(given_services.store, WHO).settle(seed=50)  # and the index has not looked yet
    told = get(given_services, similar())
    assert (told["hits"], told["reason"]) == ([], "This layer is not in the index yet.")
    index(given_services, WHO)
    assert len(get(given_services, similar())["hits"]) == 10


def test_a_layer_that_is_not_there_is_not_found(given_services: Services) -> None:
    four(given_services)
    for layer in ("nonsense", f"{LAYER}:7", '" or uid != "', "<script>", "x" * 500):
        told = get(given_services, similar(quote(layer, safe="")), 404)
        assert told["code"] == "no-such-layer"
        assert LAYER in told["hint"]


def test_the_older_form_finds_the_dataset_by_itself(given_services: Services) -> None:
    four(given_services)
    path = f"/vit/1.5_b/{LAYER}:1/search"
    (hit,) = get(given_services, similar(f"{LAYER}:1", OTHERS[2]), k=1)["hits"]
    told = get(given_services, path)
    assert told["model_version_id"] == f"model_{hit['model']}_v{hit['version']}"
    assert (told["layer_id"], told["test_accuracy"]) == (hit["layer"], hit["test_accuracy"])
    assert get(given_services, "/nobody/1/x/search", 404)["code"] == "no-such-model"
    add_dataset(given_services.store, "other", shade=5)
    settle(given_services, {Identity("other", "vit", "1.5_b"): None})
    told = get(given_services, path, 409)
    assert told["code"] == "ambiguous-model"
    assert "other/vit/1.5_b, tiny/vit/1.5_b" in told["message"]


# From a cache


def test_equal_questions_are_searched_once_until_the_index_moves(given_services: Services) -> None:
    four(given_services)
    before = answers_made()

    async def ask(client: httpx.AsyncClient) -> None:
        plain = [client.get(similar()) for _ in range(60)]
        spelled = [client.get(similar() + "?k=10&metric=deconfounded") for _ in range(40)]
        answers = await asyncio.gather(*plain, *spelled)
        assert len({answer.content for answer in answers}) == 1
        assert answers_made() == before + 1
        assert (await client.get(similar())).content == answers[0].content
        assert (await client.get(similar())).headers == answers[0].headers
        assert answers_made() == before + 1
        for other in ("?k=9", "?metric=cka", "?min_accuracy=0"):
            await client.get(similar() + other)
        assert answers_made() == before + 4

    run(given_services, ask)
    Bucket(given_services.store, OTHERS[1]).settle(seed=90, accuracy=0.99)
    index(given_services, OTHERS[1])
    hits = get(given_services, similar(), k=100)["hits"]
    assert {hit["test_accuracy"] for hit in hits if hit["model"] == "mlp"} == {0.99}


def test_another_process_answers_from_the_shared_cache(given_services: Services) -> None:
    four(given_services)
    before = answers_made()
    first = get(given_services, similar())
    assert get(given_services, similar()) == first  # `get` makes a new function each time
    assert answers_made() == before + 1


def test_the_catalogue_is_read_once_a_generation_however_many_ask(given_services: Services, vectors: Counting) -> None:
    four(given_services)

    async def ask(client: httpx.AsyncClient) -> None:
        await asyncio.gather(*(client.get("/models") for _ in range(30)))
        assert vectors.listings == 1
        await given_services.cache.bump()
        await asyncio.gather(*(client.get("/models") for _ in range(30)))
        assert vectors.listings == 2

    run(given_services, ask)


def test_what_somebody_else_put_into_the_cache_is_not_repeated(given_services: Services) -> None:
    four(given_services)
    told = get(with_cache(given_services, Poisoned()), similar())
    assert told == get(given_services, similar())


def test_without_the_cache_everything_is_answered(given_services: Services) -> None:
    four(given_services)
    without = with_cache(given_services, Down())

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            assert (await client.get(similar())).json()["hits"]
            assert (await client.get("/models")).json()["models"]

    run(without, ask)


def test_without_the_index_models_and_products_are_still_shown(given_services: Services, vectors: Counting) -> None:
    four(given_services)
    vectors.is_down = True
    for path in (similar(), "/models"):
        assert get(given_services, path, 503)["code"] == "unavailable"
    assert get(given_services, f"/models/{WHO.subject}")["state"] == "complete"
    vectors.is_down = False
    assert get(given_services, similar())["hits"]
