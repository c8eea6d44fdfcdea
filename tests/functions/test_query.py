"""What people and programs are told: of one model from the bucket, across models from the index, and from a cache."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events import http
from events.cloudevent import compose
from functions.cache import Cache, MemoryCache
from functions.errors import Unavailable
from functions.index.func import new as new_index
from functions.numpy_store import NumpyStore
from functions.query.func import new
from functions.rows import CatalogueRow, Match, Vector
from functions.server import application
from functions.services import Services
from functions.vector_store import MilvusStore, VectorStore
from schemas import keys
from schemas.events import ProductRequested
from schemas.identity import Identity
from schemas.manifests import Refusal, RefusedKey
from schemas.products import Evaluation, LayerVectors, declared_products
from schemas.queries import ErrorAnswer
from tests.functions.bucket import IMAGES, Bucket, add_dataset, evaluation, ok_layers, services

WHO = Identity("tiny", "net", "1")
OTHERS = [Identity("tiny", "net", "2"), Identity("tiny", "mlp", "1"), Identity("tiny", "vit", "1.5_b")]
LAYER = "features.0.conv"
ROOT = Path(__file__).parents[2]


class Counting(NumpyStore):
    """The index, which counts how often it is asked, and can be down."""

    def __init__(self) -> None:
        super().__init__()
        self.searches = self.listings = 0
        self.is_down = False

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, min_accuracy: float | None = None
    ) -> list[list[Match]]:
        self.searches += 1
        self._fault()
        return super().search(collection, vectors, k=k, excluding=excluding, min_accuracy=min_accuracy)

    def catalogue(self) -> list[CatalogueRow]:
        self.listings += 1
        self._fault()
        return super().catalogue()

    def _fault(self) -> None:
        if self.is_down:
            raise Unavailable("Milvus does not answer")


class Down(MemoryCache):
    """A cache that is down for its readers."""

    async def generation(self) -> str | None:
        return None


class Poisoned(MemoryCache):
    """A cache into which somebody else has written."""

    async def get(self, key: str) -> bytes | None:
        return b'{"layer": "<script>", "hits": 3}'


@pytest.fixture
def vectors() -> Counting:
    return Counting()


@pytest.fixture
def given_services(tmp_path: Path, vectors: Counting) -> Services:
    made = services(tmp_path, vectors)
    add_dataset(made.store)
    return made


def with_cache(made: Services, cache: Cache) -> Services:
    return Services(made.store, made.vectors, cache, made.log, made.scratch)


@asynccontextmanager
async def opened(made: Services) -> AsyncIterator[httpx.AsyncClient]:
    function = new()
    function.attach(made)
    transport = httpx.ASGITransport(app=application(function), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://query") as client:
        yield client


def run(made: Services, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def asked() -> Any:
        async with asyncio.timeout(60), opened(made) as client:
            return await ask(client)

    return asyncio.run(asked())


def get(made: Services, path: str, status: int = 200, **parameters: Any) -> Any:
    answer: httpx.Response = run(made, lambda client: client.get(path, params=parameters))
    assert answer.status_code == status, answer.text
    if status != 200:
        ErrorAnswer.model_validate(answer.json())
    return answer.json()


def index(made: Services, *identities: Identity) -> None:
    """Have the index look at these models."""

    async def told() -> None:
        function = new_index()
        function.attach(made)
        transport = httpx.ASGITransport(app=application(function))
        async with httpx.AsyncClient(transport=transport, base_url="http://index") as client:
            for one in identities:
                who = {"dataset": one.dataset, "model": one.model, "version": one.version}
                event = compose(ProductRequested(**who, product="index"), source="/tests", subject=one.subject)
                headers, body = http.to_binary(event)
                assert (await client.post("/", headers=headers, content=body)).status_code == 200

    asyncio.run(told())


def settle(made: Services, accuracies: dict[Identity, float | None]) -> dict[Identity, LayerVectors]:
    found = {
        one: Bucket(made.store, one).settle(seed, accuracy) for seed, (one, accuracy) in enumerate(accuracies.items())
    }
    index(made, *accuracies)
    return found


def four(made: Services) -> dict[Identity, LayerVectors]:
    return settle(made, {WHO: 0.5, OTHERS[0]: 0.9, OTHERS[1]: None, OTHERS[2]: 0.7})


def similar(layer: str = LAYER, who: Identity = WHO) -> str:
    return f"/models/{who.subject}/layers/{layer}/similar"


# One model


def test_a_model_tells_its_state_and_every_product(given_services: Services) -> None:
    settle(given_services, {WHO: 0.75})
    told = get(given_services, f"/models/{WHO.subject}")
    assert (told["state"], told["content"]) == ("complete", Bucket(given_services.store, WHO).record.content)
    assert set(told["products"]) == {product.declared.name for product in declared_products()}
    assert told["products"]["evaluation"]["headline"]["accuracy"] == 0.75
    assert told["products"]["layer_vectors"] == {
        "state": "complete",
        "recipe": LayerVectors.declared.recipe,
        "outdated": False,
        "headline": {"layers": 4, "comparable": 4},
        "refusal": None,
        "reason": None,
    }
    assert told["products"]["predictions"]["refusal"]["code"] == "not-for-it"


def test_a_model_that_is_not_admitted_tells_why(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    path = f"/models/{WHO.subject}"
    assert get(given_services, path, 404)["code"] == "no-such-model"
    bucket.put()
    assert get(given_services, path)["state"] == "computing"
    bucket.fail(None, reason="out of memory")
    assert (get(given_services, path)["state"], get(given_services, path)["reason"]) == ("failed", "out of memory")
    bucket.admit(refusal=Refusal(code="not-a-model", message="This is no model.", hint="layerscope pack"))
    told = get(given_services, path)
    assert (told["state"], told["refusal"]["code"], told["content"]) == ("refused", "not-a-model", None)
    assert get(given_services, f"{path}/products/evaluation")["state"] == "refused"


def test_an_older_product_is_shown_as_such_while_the_present_one_is_made(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    settle(given_services, {WHO: 0.75})
    add_dataset(given_services.store, shade=3)  # moves the addresses of what was made from its test part
    line = get(given_services, f"/models/{WHO.subject}")["products"]["evaluation"]
    assert (line["state"], line["outdated"], line["headline"]["accuracy"]) == ("computing", True, 0.75)
    shown = get(given_services, f"/models/{WHO.subject}/products/evaluation")
    assert (shown["state"], shown["outdated"], shown["data"]["accuracy"]) == ("computing", True, 0.75)
    bucket.write(evaluation(0.5))
    shown = get(given_services, f"/models/{WHO.subject}/products/evaluation")
    assert (shown["state"], shown["outdated"], shown["data"]["accuracy"]) == ("complete", False, 0.5)


def test_a_failed_product_tells_the_reason_and_takes_those_that_stand_on_it_along(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    for product in declared_products():
        if not product.declared.inputs:
            bucket.fail(product, reason="CUDA is out of memory")
    told = get(given_services, f"/models/{WHO.subject}")
    assert told["state"] == "failed"
    assert {line["state"] for line in told["products"].values()} == {"failed"}
    assert told["products"]["evaluation"]["reason"] == "CUDA is out of memory"


def test_a_product_has_its_data_and_files_that_can_be_kept_for_good(given_services: Services) -> None:
    product = settle(given_services, {WHO: 0.75})[WHO]
    told = get(given_services, f"/models/{WHO.subject}/products/layer_vectors")
    assert told["data"]["images"] == IMAGES
    files = {one["name"]: one for one in told["files"]}
    assert set(files) == {"data.json", "grams.npy", "cka.npy", "deconfounded.npy"}

    async def fetch(client: httpx.AsyncClient) -> None:
        one = files["cka.npy"]
        by_content = await client.get(one["url"])
        assert hashlib.sha256(by_content.content).hexdigest() == one["sha256"]
        assert len(by_content.content) == one["size"]
        assert by_content.headers["content-type"] == "application/x-npy"
        assert "immutable" in by_content.headers["cache-control"]
        by_name = await client.get(one["url"].partition("?")[0])
        assert by_name.content == by_content.content
        assert by_name.headers["cache-control"] == "no-cache"  # another content may stand there tomorrow
        assert (
            "immutable" not in (await client.get(one["url"].replace(one["sha256"], "0" * 64))).headers["cache-control"]
        )
        again = await client.get(one["url"], headers={"If-None-Match": by_name.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", by_name.headers["etag"])

    run(given_services, fetch)
    assert product.cka.shape[0] == 4


def test_bytes_that_are_not_those_of_the_manifest_are_not_shown(given_services: Services) -> None:
    settle(given_services, {WHO: 0.75})
    path = f"/models/{WHO.subject}/products/evaluation"
    (data,) = [one for one in get(given_services, path)["files"] if one["name"] == "data.json"]
    given_services.store.put(keys.PRODUCTS, keys.blob(data["sha256"]), b'{"accuracy": 1.0}')
    assert get(given_services, path, 503)["code"] == "unavailable"
    assert get(given_services, data["url"], 503)["code"] == "unavailable"


def test_unknown_products_and_files_are_not_found(given_services: Services) -> None:
    settle(given_services, {WHO: 0.75})
    base = f"/models/{WHO.subject}/products"
    assert get(given_services, f"{base}/nonsense", 404)["code"] == "no-such-product"
    assert get(given_services, f"{base}/evaluation/nonsense.png", 404)["code"] == "no-such-file"
    assert get(given_services, f"{base}/predictions/data.json", 404)["code"] == "no-such-file"  # refused
    assert get(given_services, f"/models/{WHO.subject}/nonsense", 404)["code"] == "no-such-path"


def test_layers_are_listed_in_order_with_their_health(given_services: Services) -> None:
    Bucket(given_services.store, WHO).admit()
    assert get(given_services, f"/models/{WHO.subject}/layers", 409)["code"] == "layers-computing"
    product = settle(given_services, {WHO: None})[WHO]
    told = get(given_services, f"/models/{WHO.subject}/layers")
    assert [one["layer"] for one in told["layers"]] == [layer.id for layer in product.layers]
    assert (told["images"], told["layers"][1]["layer"]) == (IMAGES, f"{LAYER}:1")


# Across models


def test_models_are_listed_newest_first_page_by_page(given_services: Services) -> None:
    store, names = given_services.store, [Identity("tiny", "net", str(i)) for i in range(7)]
    for i, one in enumerate(names):
        Bucket(store, one).put()
        when = 1_800_000_000 + i // 2  # two at a time
        os.utime(next(Path(str(store._root)).glob(f"models/tiny/net/{i}.*")), (when, when))  # type: ignore[attr-defined]
    index(given_services, *names)
    whole = get(given_services, "/models")["models"]
    assert [one["uploaded"] for one in whole] == sorted((one["uploaded"] for one in whole), reverse=True)
    assert {one["version"] for one in whole} == {one.version for one in names}
    assert whole[0]["uploaded"] == "2027-01-15T08:00:03.000Z"

    paged, cursor = [], None
    for _ in range(4):
        page = get(given_services, "/models", limit=2, **({"cursor": cursor} if cursor else {}))
        paged += page["models"]
        cursor = page["next"]
    assert (paged, cursor) == (whole, None)


def test_the_list_is_filtered_by_dataset_and_state(given_services: Services) -> None:
    settle(given_services, {WHO: 0.75})
    elsewhere = Identity("tiny2", "net", "1")
    Bucket(given_services.store, elsewhere).put()
    index(given_services, elsewhere)
    assert [one["dataset"] for one in get(given_services, "/models", dataset="tiny")["models"]] == ["tiny"]
    assert [one["dataset"] for one in get(given_services, "/models", state="computing")["models"]] == ["tiny2"]
    assert get(given_services, "/models", dataset="tiny", state="failed")["models"] == []
    (line,) = get(given_services, "/models", state="complete")["models"]
    assert (line["test_accuracy"], line["version"]) == (0.75, "1")


def test_uploads_whose_keys_break_the_rule_are_listed_while_they_exist(given_services: Services) -> None:
    key = "no rule/at all"
    refusal = Refusal(code="bad-key", message="The key is bad.", hint="aws s3 mv")
    given_services.store.put(keys.PRODUCTS, keys.refused_key(key), RefusedKey(key=key, refusal=refusal).to_bytes())
    assert get(given_services, "/refusals") == {"refusals": []}
    given_services.store.put(keys.MODELS, key, b"x")
    (told,) = get(given_services, "/refusals")["refusals"]
    assert (told["key"], told["code"]) == (key, "bad-key")


@pytest.fixture(params=["memory", "file"])
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
    bucket.put()
    assert "still" in get(given_services, similar())["reason"]
    bucket.admit(refusal=Refusal(code="not-a-model", message="This is no model."))
    assert "not admitted" in get(given_services, similar())["reason"]
    bucket.admit(b"a model")
    bucket.fail(LayerVectors, reason="it broke")
    assert "it broke" in get(given_services, similar())["reason"]
    bucket.refuse(LayerVectors)
    assert "cannot have" in get(given_services, similar())["reason"]


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
    assert get(given_services, path, k=3) == get(given_services, similar(f"{LAYER}:1", OTHERS[2]), k=3)
    assert get(given_services, "/nobody/1/x/search", 404)["code"] == "no-such-model"
    add_dataset(given_services.store, "other", shade=5)
    settle(given_services, {Identity("other", "vit", "1.5_b"): None})
    told = get(given_services, path, 409)
    assert told["code"] == "ambiguous-model"
    assert "other/vit/1.5_b, tiny/vit/1.5_b" in told["message"]


# From a cache


def test_equal_questions_are_searched_once_until_the_index_moves(given_services: Services, vectors: Counting) -> None:
    four(given_services)

    async def ask(client: httpx.AsyncClient) -> None:
        plain = [client.get(similar()) for _ in range(60)]
        spelled = [client.get(similar() + "?k=10&metric=deconfounded") for _ in range(40)]
        answers = await asyncio.gather(*plain, *spelled)
        assert len({answer.content for answer in answers}) == 1
        assert vectors.searches == 1
        await client.get(similar())
        assert vectors.searches == 1
        for other in ("?k=9", "?metric=cka", "?min_accuracy=0"):
            await client.get(similar() + other)
        assert vectors.searches == 4

    run(given_services, ask)
    Bucket(given_services.store, OTHERS[1]).settle(seed=90, accuracy=0.99)
    index(given_services, OTHERS[1])
    hits = get(given_services, similar(), k=100)["hits"]
    assert {hit["test_accuracy"] for hit in hits if hit["model"] == "mlp"} == {0.99}


def test_another_process_answers_from_the_shared_cache(given_services: Services, vectors: Counting) -> None:
    four(given_services)
    first = get(given_services, similar())
    assert get(given_services, similar()) == first  # `get` makes a new function each time
    assert vectors.searches == 1


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


def test_without_the_cache_everything_is_answered(given_services: Services, vectors: Counting) -> None:
    four(given_services)
    without = with_cache(given_services, Down())

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            assert (await client.get(similar())).json()["hits"]
            assert (await client.get("/models")).json()["models"]

    run(without, ask)
    assert (vectors.searches, vectors.listings) == (2, 2)


def test_without_the_index_models_and_products_are_still_shown(given_services: Services, vectors: Counting) -> None:
    four(given_services)
    vectors.is_down = True
    for path in (similar(), "/models"):
        assert get(given_services, path, 503)["code"] == "unavailable"
    assert get(given_services, f"/models/{WHO.subject}")["state"] == "complete"
    vectors.is_down = False
    assert get(given_services, similar())["hits"]


# The interface


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        (similar(), {"k": 0}),
        (similar(), {"k": 101}),
        (similar(), {"k": "many"}),
        (similar(), {"metric": "cosine"}),
        (similar(), {"min_accuracy": 1.5}),
        (similar(), {"min_accuracy": "nan"}),
        ("/models", {"state": "unheard"}),
        ("/models", {"dataset": "../etc"}),
        ("/models", {"limit": 100_000}),
        ("/models", {"cursor": "nonsense"}),
        ("/models/tiny/.hidden/1", {}),
        ("/models/tiny/net/a%20b", {}),
    ],
)
def test_a_request_that_cannot_be_understood_says_so(
    given_services: Services, path: str, parameters: dict[str, Any]
) -> None:
    told = get(given_services, path, 422, **parameters)
    assert told["code"] in ("bad-parameter", "bad-cursor")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(TEXT, min_size=1, max_size=5),
    ask=st.dictionaries(
        st.sampled_from(["k", "metric", "min_accuracy", "cursor", "dataset", "state", "limit"]), TEXT, max_size=3
    ),
)
def test_no_request_is_a_bug(given_services: Services, parts: list[str], ask: dict[str, str]) -> None:
    paths = (
        "/" + "/".join(quote(one, safe="") for one in parts),
        f"/models/{WHO.subject}/layers/{quote(parts[0], safe='')}/similar",
        f"/models/{WHO.subject}/products/{quote(parts[-1], safe='')}",
        "/models",
    )

    async def all_of_them(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path, params=ask) for path in paths]

    if not given_services.vectors.catalogue():
        settle(given_services, {WHO: 0.5})
    for answer in run(given_services, all_of_them):
        assert answer.status_code in (200, 307, 404, 405, 409, 422), answer.text


def test_every_answer_forbids_sniffing_and_script(given_services: Services) -> None:
    settle(given_services, {WHO: 0.5})
    for path in ("/models", f"/models/{WHO.subject}", "/nonsense", "/models?limit=0", f"/models/{OTHERS[0].subject}"):
        answer = run(given_services, lambda client, path=path: client.get(path))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_bug_is_answered_without_its_details(given_services: Services) -> None:
    class Broken(NumpyStore):
        def catalogue(self) -> list[CatalogueRow]:
            raise RuntimeError("a secret")

    broken = Services(given_services.store, Broken(), MemoryCache(), given_services.log, given_services.scratch)
    answer = run(broken, lambda client: client.get("/models"))
    assert answer.status_code == 500
    assert ErrorAnswer.model_validate(answer.json()).code == "internal-error"
    assert "secret" not in answer.text


def test_the_openapi_document_tells_how_errors_look(given_services: Services) -> None:
    document = get(given_services, "/openapi.json")
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        answers = operations["get"]["responses"]
        for status in ("422", "503"):
            schema = answers[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, path


def test_it_starts_without_torch_milvus_or_redis() -> None:
    code = (
        "import sys; from functions.query.func import new; new()\n"
        "print([name for name in ('torch', 'pymilvus', 'milvus_lite', 'grpc', 'redis', 'kafka') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    assert told.stdout.strip() in ("[]", "['kafka']")


def test_evaluations_are_products() -> None:
    assert Evaluation in declared_products()
