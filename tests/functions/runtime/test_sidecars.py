"""What lies beside a model, and the shape of a dataset's images: how they get to the products that read them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.http import to_binary
from layerscope.functions.replay.missing import missing
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.functions.summary.func import new as new_summary
from layerscope.functions.training_history.func import compute
from layerscope.functions.training_history.func import new as new_history
from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of, inputs_of
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.digests import canonical_json, sha256
from layerscope.schemas.errors import Ignored, Refused
from layerscope.schemas.events import ProductRefused, ProductRequested, ProductWritten
from layerscope.schemas.identity import SIDECARS, Identity, identify
from layerscope.schemas.manifests import Manifest, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.summary import Summary
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores import product_store, uploads
from layerscope.stores.object_store import Object
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.product_store import Making
from tests.functions import asking
from tests.functions.bucket import DATASET, add_dataset, services
from tests.small_networks import packed

WHO = Identity(DATASET, "net", "1")
LOG = b"epoch,loss,val_acc\n1,0.5,0.75\n2,0.25,0.875\n"


def admit(made: Services, *, training: dict[str, Any] | None = None, content: bytes = b"weights") -> UploadRecord:
    """Write what admit writes: a record of the upload as it is now, and the blobs that it names."""
    made.store.put(keys.MODELS, keys.upload(WHO), content)
    upload = uploads.current(made.store, WHO)
    assert upload is not None
    blobs = [content] if training is None else [content, canonical_json(training)]
    for one in blobs:
        made.store.put(keys.PRODUCTS, keys.blob(sha256(one)), one)
    record = UploadRecord(
        dataset=WHO.dataset,
        model=WHO.model,
        version=WHO.version,
        recipe=UploadRecord.RECIPE,
        etag=upload.etag,
        sidecars=upload.sidecars,
        size=upload.size,
        state="admitted",
        content=sha256(content),
        training=None if training is None else sha256(canonical_json(training)),
    )
    made.store.put(keys.PRODUCTS, upload.record_key, record.to_bytes())
    return record


def ask(made: Services, function: ProductFunction) -> CloudEvent | None:
    """Post a request for the function's product, and return the type of the event that it answers."""

    async def told() -> httpx.Response:
        function.attach(made)
        who = {"dataset": WHO.dataset, "model": WHO.model, "version": WHO.version}
        event = compose(ProductRequested(**who, product=function.name), source="/tests", subject=WHO.subject)
        headers, body = to_binary(event)
        transport = httpx.ASGITransport(app=application(function))
        async with asyncio.timeout(300), httpx.AsyncClient(transport=transport, base_url="http://function") as client:
            answer = await client.post("/", headers=headers, content=body)
        function.stop()
        return answer

    answer = asyncio.run(told())
    assert answer.status_code in (200, 204), answer.text
    return answer.headers.get("ce-type")


def manifest(made: Services, product: type[Summary] | type[TrainingHistory]) -> Manifest:
    record = uploads.record(made.store, uploads.current(made.store, WHO))  # type: ignore[arg-type]
    assert record is not None
    found = product_store.manifest(made.store, product, uploads.facts(made.store, record))
    assert found is not None
    return found


@pytest.fixture
def made(tmp_path: Path) -> Services:
    return services(tmp_path)


@pytest.mark.slow
def test_a_log_beside_the_model_becomes_its_training_history(made: Services) -> None:
    made.store.put(keys.MODELS, keys.sidecar(WHO, ".history.csv"), LOG)
    admit(made)
    assert ask(made, new_history()) == ProductWritten.type
    found = manifest(made, TrainingHistory)
    assert found.headline["best_test_accuracy"] == 0.875
    assert set(found.inputs.sidecars) == {"history_csv"}
    assert {file.name for file in found.files} == {"data.json", "curves.svg"}


@pytest.mark.slow
def test_without_any_it_is_refused_with_a_hint_until_one_comes(made: Services) -> None:
    admit(made)
    assert ask(made, new_history()) == ProductRefused.type
    refusal = manifest(made, TrainingHistory).refusal
    assert refusal is not None and refusal.code == "no-history"
    call = compile(refusal.hint, "hint", "eval")
    assert f'"{WHO.subject}"' in refusal.hint and call.co_names[:2] == ("layerscope", "upload")
    made.store.put(keys.MODELS, keys.sidecar(WHO), b'{"epochs": [{"train_loss": 0.5}]}')
    admit(made)
    assert ask(made, new_history()) == ProductWritten.type
    assert manifest(made, TrainingHistory).state == "complete"


@pytest.mark.slow
def test_figures_found_in_the_file_itself_are_a_history_too(made: Services) -> None:
    admit(made, training={"epoch": 3, "train_losses": [0.5, 0.25, 0.125]})
    assert ask(made, new_history()) == ProductWritten.type
    assert manifest(made, TrainingHistory).headline["epochs"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("training", [None, {"epoch": 3, "loss": 0.5}])
def test_what_is_there_is_not_missing(made: Services, training: dict[str, Any] | None) -> None:
    made.store.put(keys.MODELS, keys.sidecar(WHO), b'{"epochs": [{"train_loss": 0.5}]}')
    admit(made, training=training)
    ask(made, new_history())
    asked = {
        one.data.product for one in missing(made.store, made.vectors, KnownOutcomes()) if hasattr(one.data, "product")
    }
    assert "predictions" in asked and "training_history" not in asked


def test_a_file_too_large_is_refused_unread(made: Services) -> None:
    made.store.put(keys.MODELS, keys.sidecar(WHO, ".history.csv"), bytes(uploads.SIDECAR_LIMIT + 1))
    facts = uploads.facts(made.store, admit(made))
    with pytest.raises(Refused) as refused:
        uploads.sidecars(made.store, facts, ("history_csv",))
    assert refused.value.code == "history-too-large"


def test_a_file_that_changed_since_the_facts_were_found_out_is_left_to_the_next_event(made: Services) -> None:
    made.store.put(keys.MODELS, keys.sidecar(WHO, ".history.csv"), LOG)
    facts = uploads.facts(made.store, admit(made))
    made.store.put(keys.MODELS, keys.sidecar(WHO, ".history.csv"), LOG + b"3,0.1,0.9\n")
    with pytest.raises(Ignored):
        uploads.sidecars(made.store, facts, ("history_csv",))


def test_of_two_files_of_a_kind_the_newer_counts_wherever_it_is_listed(made: Services) -> None:
    zeta = Identity(DATASET, "zeta", "1")
    for key, content in [("tiny/model_zeta_v1.history.json", b"1"), ("tiny/zeta/1.history.json", b"22")]:
        made.store.put(keys.MODELS, key, content)
    made.store.put(keys.MODELS, keys.upload(zeta), b"weights")
    alone, among = uploads.current(made.store, zeta), uploads.by_identity(made.store.list(keys.MODELS))[0][zeta]
    assert alone is not None and alone.record_key == among.record_key
    assert alone.sidecar_objects["history"].size == 2


def test_the_markers_of_empty_folders_are_neither_uploads_nor_misnamed() -> None:
    def listed(key: str, size: int) -> Object:
        return Object(key, "e", size, datetime.now(UTC))

    found, misnamed = uploads.by_identity(
        [listed("digits/", 0), listed("digits/lenet/", 0), listed("digits/full/", 5), listed("empty", 0)]
    )
    assert (found, [one.key for one in misnamed]) == ({}, ["digits/full/", "empty"])


@pytest.mark.parametrize(("ending", "kind"), SIDECARS.items())
def test_endings_tell_the_kind_of_file(ending: str, kind: str) -> None:
    found = identify(f"mnist/lenet/3.1{ending}")
    assert (found.identity, found.sidecar) == (Identity("mnist", "lenet", "3.1"), kind)
    assert identify(keys.sidecar(WHO, ending)).identity == WHO


def described(shape: tuple[int, int, int], digest: str = "a") -> DatasetDescription:
    parts = {"test": {"sha256": digest * 64, "images": 5}}
    figures = {"mean": (0.5,) * shape[2], "std": (0.5,) * shape[2]}
    return DatasetDescription.model_validate({"name": "d", "classes": ["a"], "shape": shape, "parts": parts, **figures})


def test_the_shape_of_the_images_is_all_that_a_summary_takes_from_a_dataset() -> None:
    first = Facts(WHO, "c" * 64, described((8, 8, 1)))
    other = Facts(WHO, "c" * 64, described((8, 8, 1), "b"))
    larger = Facts(WHO, "c" * 64, described((9, 8, 1)))
    without = Facts(WHO, "c" * 64, None)
    assert address_of(Summary, first) == address_of(Summary, other)
    assert len({address_of(Summary, one) for one in (first, larger, without)}) == 3
    assert address_of(Predictions, first) != address_of(Predictions, other)
    assert inputs_of(Summary, without).parts == {"shape": None}
    assert "shape" not in inputs_of(Predictions, first).parts


def test_a_sidecar_moves_only_what_reads_it() -> None:
    before = Facts(WHO, "c" * 64, described((8, 8, 1)))
    after = Facts(WHO, "c" * 64, described((8, 8, 1)), {"history_csv": "etag", "architecture": "etag"})
    moved = [one for one in declared_products() if address_of(one, before) != address_of(one, after)]
    assert TrainingHistory in moved
    assert all(one is TrainingHistory or TrainingHistory in one.declared.stands_on for one in moved)


@pytest.mark.slow
def test_a_model_has_a_summary_with_and_without_its_dataset(made: Services) -> None:
    content = packed(1)
    admit(made, content=content)
    assert ask(made, new_summary()) == ProductWritten.type
    assert manifest(made, Summary).headline["multiply_adds"] is None
    add_dataset(made.store)
    assert ask(made, new_summary()) == ProductWritten.type
    found = manifest(made, Summary)
    assert {file.name: file.type for file in found.files}["source.py"].startswith("text/x-python")


def test_a_drawing_is_served_where_nothing_in_it_could_run(made: Services) -> None:
    made.store.put(keys.MODELS, keys.sidecar(WHO, ".history.csv"), LOG)
    record = admit(made)
    product = compute({"history_csv": LOG})
    product_store.write(made.store, product, uploads.facts(made.store, record), Making())

    async def got(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get(f"/models/{WHO.subject}/products/training_history/curves.svg")

    answer: httpx.Response = asking.run(made, got)
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = {part.strip() for part in answer.headers["content-security-policy"].split(";")}
    assert {"sandbox", "default-src 'none'"} <= policy
    assert answer.text == product.curves
