"""What people and programs are told of models and products, from the bucket and from the catalogue."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal, RefusedKey
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores.cache import MemoryCache
from layerscope.stores.index_rows import CatalogueRow
from tests.functions.asking import LAYER, OTHERS, WHO, Counting, get, index, run, settle, similar, started
from tests.functions.bucket import IMAGES, Bucket, add_dataset, evaluation, services
from tests.stores.exact_vector_store import NumpyStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def vectors() -> Counting:
    return Counting()


@pytest.fixture
def given_services(tmp_path: Path, vectors: Counting) -> Services:
    made = services(tmp_path, vectors)
    add_dataset(made.store)
    return made


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
        "not_given": False,
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


@pytest.mark.slow
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
    assert set(files) == {"data.json", "grams.npy", "cka.npy", "deconfounded.npy", "neighbours.npy"}

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
    assert (
        get(given_services, "/models/", 404)["code"] == "no-such-path"
    )  # and no redirect to what the Host header says


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
    assert get(given_services, "/refusals")["refusals"] == []
    given_services.store.put(keys.MODELS, key, b"x")
    (told,) = get(given_services, "/refusals")["refusals"]
    assert (told["key"], told["code"]) == (key, "bad-key")


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


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> QueryFunction:
    made = services(tmp_path_factory.mktemp("lasting"))
    add_dataset(made.store)
    settle(made, {WHO: 0.5})
    return started(made)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PARAMETERS = st.sampled_from(["k", "metric", "min_accuracy", "cursor", "dataset", "state", "limit", "sha256"])


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(parts=st.lists(TEXT, min_size=1, max_size=5), ask=st.dictionaries(PARAMETERS, TEXT, max_size=3))
def test_no_request_is_a_bug(lasting: QueryFunction, parts: list[str], ask: dict[str, str]) -> None:
    segments = [quote(part, safe="") for part in parts]
    paths = (
        f"/{'/'.join(segments)}",
        f"/models/{WHO.subject}/layers/{segments[0]}/similar",
        f"/models/{WHO.subject}/products/{segments[-1]}",
        f"/models/{WHO.subject}/products/evaluation/{segments[-1]}",
        "/models",
    )

    async def all_of_them(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path, params=ask) for path in paths]

    for answer in run(lasting, all_of_them):
        assert answer.status_code in (200, 404, 405, 409, 422), answer.text
        if answer.status_code != 200:
            ErrorAnswer.model_validate(answer.json())


@pytest.mark.parametrize("path", ["/%0A", "/models%0A", f"/models/{WHO.subject}%0A"])
def test_a_path_that_ends_in_a_newline_is_none(lasting: QueryFunction, path: str) -> None:
    answer = run(lasting, lambda client: client.get(path))
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-path")


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
        for method, operation in operations.items():
            for status in ("422", "503"):
                schema = operation["responses"][status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (method, path)


@pytest.mark.slow
def test_it_starts_without_torch_milvus_or_redis() -> None:
    code = (
        "import sys; from layerscope.functions.query.func import new; new()\n"
        "print(sorted({'torch', 'pymilvus', 'milvus_lite', 'grpc', 'redis'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    assert told.stdout.strip() == "[]"
