"""The path of an event through a function: one answer for every request, and what each kind of trouble means."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent, InvalidEventData, compose
from layerscope.functions.runtime.asgi import BODY_LIMIT, EventFunction
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services, embedded
from layerscope.schemas import keys
from layerscope.schemas.addresses import address_of, manifest_key
from layerscope.schemas.errors import Busy, Ignored, Refused, Unavailable, WorkFailed
from layerscope.schemas.events import ModelAdmitted, ProductRefused, ProductRequested, ProductWritten
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import UploadRecord
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import blobs, datasets, product_store, uploads
from layerscope.stores.datasets import Dataset
from layerscope.stores.product_store import Making

IDENTITY = Identity("digits", "plain", "1")
WHO = {"dataset": "digits", "model": "plain", "version": "1"}
CONTENT = "c" * 64


class Answering(EventFunction):
    """Does with each event what the test says."""

    def __init__(self, respond: Callable[[CloudEvent], Awaitable[CloudEvent | None]]) -> None:
        super().__init__("answering")
        self._respond = respond
        self.attach(embedded(Path("untouched")))  # nothing is made before it is used

    async def respond(self, event: CloudEvent) -> CloudEvent | None:
        return await self._respond(event)


def event() -> CloudEvent:
    data = ProductRequested(**WHO, product="confusion_matrix")
    return compose(data, source="/tests", subject=IDENTITY.subject, lane="replay", replayid="r1")


def client(function: EventFunction) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=application(function))
    return httpx.AsyncClient(transport=transport, base_url="http://function")


async def post(function: EventFunction, sent: CloudEvent) -> httpx.Response:
    headers, body = http.to_binary(sent)
    async with client(function) as caller:
        return await caller.post("/", headers=headers, content=body)


def asked(error: Exception | None) -> httpx.Response:
    async def respond(_: CloudEvent) -> CloudEvent | None:
        if error is not None:
            raise error
        return None

    return asyncio.run(post(Answering(respond), event()))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 204),
        (Ignored("gone"), 204),
        (InvalidCloudEvent(["not ours"]), 400),
        (InvalidEventData("its data is odd"), 422),
        (Busy("later"), 429),
        (Unavailable("the store is down"), 503),
        (WorkFailed("the computing process ended with signal SIGKILL"), 500),
        (OSError(errno.ENOSPC, "No space left on device", "/secret/hunter2"), 503),
        (OSError(errno.EMFILE, "Too many open files"), 503),
        (MemoryError(), 503),
        (OSError(errno.EACCES, "Permission denied"), 500),
        (ValueError("a bug with a secret: hunter2"), 500),
        (KeyError("hunter2"), 500),
    ],
)
def test_every_outcome_has_one_status(error: Exception | None, status: int) -> None:
    answer = asked(error)
    assert answer.status_code == status
    assert not any(name.startswith("ce-") for name in answer.headers)
    assert "hunter2" not in answer.text
    if status == 204:
        assert not answer.content
    else:
        # A second hyphen there would wedge the genuine dispatcher.
        assert [name for name in answer.headers if name.startswith("kne-")] == ["kne-errorclass"]
        assert 0 < len(answer.content) <= 1024


def test_the_reason_is_in_the_body() -> None:
    assert asked(WorkFailed("the computing process ended with signal SIGKILL")).text.endswith("signal SIGKILL")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({"content-type": "text/plain"}, b"hello"),
        ({"content-type": "application/cloudevents+json"}, b"{nope"),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s"}, b""),
        ({"ce-specversion": "0.3", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}, b""),
        (
            {
                "ce-specversion": "1.0",
                "ce-id": "1",
                "ce-source": "/s",
                "ce-type": "t",
                "content-type": "application/json",
            },
            b"{",
        ),
    ],
)
def test_what_is_no_event_is_told_so_and_never_retried(headers: dict[str, str], body: bytes) -> None:
    async def scenario() -> httpx.Response:
        async with client(Answering(lambda _: asyncio.sleep(0, None))) as caller:
            return await caller.post("/", headers=headers, content=body)

    assert asyncio.run(scenario()).status_code == 400


def test_a_large_body_is_refused_before_it_is_read() -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    function = Answering(lambda _: asyncio.sleep(0, None))
    headers = [(b"content-length", str(BODY_LIMIT + 1).encode())]
    asyncio.run(function.handle({"type": "http", "method": "POST", "headers": headers}, receive, send))
    assert (sent[0]["status"], read) == (413, 0)
    sent.clear()
    asyncio.run(function.handle({"type": "http", "method": "POST", "headers": []}, receive, send))
    assert sent[0]["status"] == 413
    assert read == BODY_LIMIT // 1024 + 1


def test_health_answers_while_an_event_is_in_progress_and_readiness_ends_with_stop() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def respond(_: CloudEvent) -> None:
            await gate.wait()

        function = Answering(respond)
        async with client(function) as caller:
            call = asyncio.create_task(post(function, event()))
            await asyncio.sleep(0.05)
            assert (await caller.get("/health/liveness")).status_code == 200
            assert (await caller.get("/health/readiness")).status_code == 200
            function.stop()
            assert (await caller.get("/health/readiness")).status_code == 503
            assert (await post(function, event())).status_code == 429
            gate.set()
            assert (await call).status_code == 204

    asyncio.run(scenario())


# Products ------------------------------------------------------------------------------------------------------------

COMPUTED = "computed"


def matrix(predictions: Predictions, dataset: Dataset) -> ConfusionMatrix:
    """Leave a line beside the dataset for each computation, and return a small product."""
    with Path(dataset.description.source).open("a") as counter:
        counter.write("computed\n")
    if predictions.non_finite:
        raise Refused("non-finite", "No output is finite.", "train it again")
    return ConfusionMatrix(
        classes=("a", "b"),
        counts=((1, 0), (0, 1)),
        rates=((1, 0), (0, 1)),
        left_out=0,
        most_confused=(),
        heatmap=b"png",
    )


class System:
    """A directory with one admitted model, and a function over it."""

    def __init__(self, directory: Path) -> None:
        self.services: Services = embedded(directory)
        self.counter = self.services.scratch / COMPUTED  # the one folder that its worker has
        store = self.services.store
        store.ensure_buckets()
        store.put(keys.MODELS, keys.upload(IDENTITY), b"an upload")
        part = datasets.PartArrays(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]))
        datasets.write(
            store,
            "digits",
            ("a", "b"),
            {"test": part, "probe": part},
            mean=(0.5,),
            std=(0.5,),
            source=str(self.counter),
        )
        upload = uploads.current(store, IDENTITY)
        assert upload is not None
        self.record_key = upload.record_key
        record = UploadRecord(**WHO, recipe=1, etag=upload.etag, size=9, state="admitted", content=CONTENT)
        store.put(keys.PRODUCTS, upload.record_key, record.to_bytes())
        self.facts = uploads.facts(store, record)

    def predict(self, non_finite: int = 0) -> None:
        outputs = np.eye(2, dtype=np.float32)
        made = Predictions(outputs=outputs, output_kind="logits", images=2, non_finite=non_finite)
        product_store.write(self.services.store, made, self.facts, Making())

    def computations(self) -> int:
        return len(self.counter.read_text().splitlines()) if self.counter.exists() else 0

    async def send(self, *sent: CloudEvent) -> list[httpx.Response]:
        function = ProductFunction(ConfusionMatrix, matrix)
        function.attach(self.services)
        try:
            return list(await asyncio.gather(*(post(function, one) for one in sent)))
        finally:
            function.stop()


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def told(answer: httpx.Response) -> CloudEvent:
    assert answer.status_code == 200
    return http.from_request([(k.encode(), v.encode()) for k, v in answer.headers.items()], answer.content)


@pytest.mark.slow
def test_a_product_is_made_stored_and_told(system: System) -> None:
    system.predict()
    (answer,) = asyncio.run(system.send(event()))
    written = told(answer)
    assert (written.type, written.subject) == (ProductWritten.type, IDENTITY.subject)
    assert written.extensions["lane"] == "replay"
    assert written.extensions["product"] == "confusion_matrix"
    assert written.extensions["causationid"] == event().id
    manifest = product_store.manifest(system.services.store, ConfusionMatrix, system.facts)
    assert manifest is not None
    assert manifest.address == json.loads(written.data or b"")["address"]
    loaded = product_store.load(system.services.store, ConfusionMatrix, manifest)
    assert isinstance(loaded, ConfusionMatrix)
    assert loaded.heatmap == b"png"


@pytest.mark.slow
def test_the_manifest_is_there_before_its_event(system: System) -> None:
    order: list[str] = []
    store, put = system.services.store, system.services.store.put

    def recorded(bucket: str, key: str, *args: Any, **kwargs: Any) -> bool:
        order.append(key.split("/", maxsplit=1)[0])
        return put(bucket, key, *args, **kwargs)

    system.predict()
    object.__setattr__(store, "put", recorded)
    (answer,) = asyncio.run(system.send(event()))
    order.append(f"answer {answer.status_code}")
    assert order == ["blobs", "blobs", "manifests", "answer 200"]


@pytest.mark.slow
def test_a_repeated_event_computes_nothing_and_is_told_the_same(system: System) -> None:
    system.predict()
    (first,) = asyncio.run(system.send(event()))
    stored = {one.key: one.etag for one in system.services.store.list(keys.PRODUCTS)}
    (second,) = asyncio.run(system.send(event()))
    assert system.computations() == 1
    assert told(second).id == told(first).id
    assert told(second).data == told(first).data
    assert {one.key: one.etag for one in system.services.store.list(keys.PRODUCTS)} == stored


@pytest.mark.slow
def test_events_for_one_address_join_one_computation(system: System) -> None:
    system.predict()
    answers = asyncio.run(system.send(*[event()] * 5))
    assert [one.status_code for one in answers] == [200] * 5
    assert system.computations() == 1


@pytest.mark.slow
def test_a_refusal_is_an_outcome(system: System) -> None:
    system.predict(non_finite=2)
    (answer,) = asyncio.run(system.send(event()))
    refused = told(answer)
    assert refused.type == ProductRefused.type
    assert json.loads(refused.data or b"")["refusal"] == {
        "code": "non-finite",
        "message": "No output is finite.",
        "hint": "train it again",
    }
    asyncio.run(system.send(event()))
    assert system.computations() == 1


def test_while_an_input_is_missing_there_is_nothing_to_say(system: System) -> None:
    (answer,) = asyncio.run(system.send(event()))
    assert answer.status_code == 204
    assert system.computations() == 0


def test_without_its_dataset_a_product_is_refused_at_an_address_that_says_so(system: System) -> None:
    store = system.services.store
    store.remove(keys.DATASETS, keys.dataset_description("digits"))

    async def scenario() -> httpx.Response:
        function = ProductFunction(LayerVectors, matrix)
        function.attach(system.services)
        admitted = ModelAdmitted(**WHO, key=keys.upload(IDENTITY), etag="e", content=CONTENT)
        try:
            return await post(function, compose(admitted, source="/tests", subject=IDENTITY.subject))
        finally:
            function.stop()

    refused = json.loads(told(asyncio.run(scenario())).data or b"")
    assert refused["refusal"]["code"] == "no-dataset"
    assert refused["address"] != address_of(LayerVectors, system.facts)


def test_an_event_about_a_model_that_is_gone_or_replaced_is_ignored(system: System) -> None:
    system.predict()
    system.services.store.put(keys.MODELS, keys.upload(IDENTITY), b"another upload, not yet admitted")
    (answer,) = asyncio.run(system.send(event()))
    assert answer.status_code == 204
    system.services.store.remove(keys.MODELS, keys.upload(IDENTITY))
    (answer,) = asyncio.run(system.send(event()))
    assert (answer.status_code, system.computations()) == (204, 0)


def test_a_subject_that_names_no_model_is_not_understood(system: System) -> None:
    data = ProductRequested(**WHO, product="confusion_matrix")
    (answer,) = asyncio.run(system.send(compose(data, source="/tests", subject="nonsense")))
    assert answer.status_code == 422


# Bytes that are lost, or are something else --------------------------------------------------------------------------


def triggered() -> CloudEvent:
    data = ProductWritten(**WHO, content=CONTENT, product="predictions", address="r1-0")
    return compose(data, source="/tests", subject=IDENTITY.subject)


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "cut short"])
def test_a_product_whose_bytes_are_lost_is_made_again_when_it_is_asked_for(system: System, is_lost: bool) -> None:
    system.predict()
    store = system.services.store

    async def damaged() -> None:
        await system.send(event())
        manifest = product_store.manifest(store, ConfusionMatrix, system.facts)
        assert manifest is not None
        place = keys.blob(manifest.file("heatmap.png").sha256)
        if is_lost:
            store.remove(keys.PRODUCTS, place)
        else:
            store.put(keys.PRODUCTS, place, b"pn")
        await system.send(triggered())
        assert system.computations() == 1  # an event that comes again costs no look at every file
        (answer,) = await system.send(event())
        assert told(answer).type == ProductWritten.type
        assert store.get(keys.PRODUCTS, place) == b"png"
        assert product_store.manifest(store, ConfusionMatrix, system.facts) == manifest

    asyncio.run(damaged())


@pytest.mark.slow
def test_an_unreadable_manifest_is_replaced(system: System) -> None:
    system.predict()

    async def damaged() -> None:
        await system.send(event())
        system.services.store.put(keys.PRODUCTS, manifest_key(ConfusionMatrix, system.facts), b"{")
        (answer,) = await system.send(event())
        assert told(answer).type == ProductWritten.type
        assert product_store.manifest(system.services.store, ConfusionMatrix, system.facts) is not None
        assert system.computations() == 2

    asyncio.run(damaged())


@pytest.mark.parametrize("damage", ["lost", "something else"])
def test_on_an_input_that_is_damaged_nothing_is_computed_and_it_shows_in_a_list(system: System, damage: str) -> None:
    system.predict()
    store = system.services.store
    found = product_store.manifest(store, Predictions, system.facts)
    assert found is not None
    file = found.file("outputs.npy")
    if damage == "lost":
        store.remove(keys.PRODUCTS, keys.blob(file.sha256))
    else:
        store.put(keys.PRODUCTS, keys.blob(file.sha256), b"X" * file.size)
    (answer,) = asyncio.run(system.send(event()))
    assert answer.status_code == 204
    assert not blobs.are_stored(store, found.files)
    system.predict()
    assert blobs.are_stored(store, found.files)


@pytest.mark.parametrize("damage", [None, b"PK"])
def test_a_dataset_whose_images_are_damaged_is_waited_for(system: System, damage: bytes | None) -> None:
    description = datasets.describe(system.services.store, "digits")
    assert description is not None
    place = keys.dataset_part("digits", description.parts["test"].sha256)
    if damage is None:
        system.services.store.remove(keys.DATASETS, place)
    else:
        system.services.store.put(keys.DATASETS, place, damage)
    system.predict()
    (answer,) = asyncio.run(system.send(event()))
    assert answer.status_code == 503
    assert "layerscope datasets add" in answer.text
