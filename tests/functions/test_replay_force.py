"""A run with force: what is there is made once more, apart from it, compared, and takes its place when that is accepted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from layerscope import embedded
from layerscope.embedded import Running
from layerscope.functions.replay import acceptance
from layerscope.functions.replay.asks import request
from layerscope.functions.replay.runs_at_work import RunsAtWork
from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, manifest_key
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import VOLATILE, Manifest, Refusal, UploadRecord
from layerscope.schemas.products import declared_products, product_named
from layerscope.schemas.products.product import Product
from layerscope.schemas.replays import Run
from layerscope.stores import blobs, product_store, uploads
from layerscope.stores.product_store import encode
from layerscope.stores.replays import runs
from tests.small_networks import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WHO = Identity("digits", "tiny", "1")
OTHER = Identity("digits", "tiny", "2")


def above(name: str) -> set[str]:
    """Return the products that stand on one, on however many others in between."""
    found: set[str] = set()
    for one in declared_products():
        if {below.declared.name for below in one.declared.inputs} & {name, *found}:
            found.add(one.declared.name)
    return found


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which two models are complete."""
    directory = tmp_path_factory.mktemp("analysed")

    async def analyse() -> None:
        async with embedded.running(directory, lambda _: None) as running:
            for seed, one in enumerate((WHO, OTHER)):
                await running.put(f"{one.subject}.safetensors", tiny(seed))
            await running.settle()

    asyncio.run(analyse())
    return directory


@pytest.fixture
def directory(analysed: Path, tmp_path: Path) -> Path:
    shutil.copytree(analysed, tmp_path / "system")
    return tmp_path / "system"


def in_the_system(directory: Path, told: Callable[[Running], Awaitable[None]]) -> None:
    async def run() -> None:
        async with embedded.running(directory, lambda _: None) as running:
            running.replay.runs = RunsAtWork(tick=0.05)
            await told(running)

    asyncio.run(run())


def facts(running: Running, identity: Identity = WHO) -> Facts:
    upload = uploads.current(running.services.store, identity)
    assert upload is not None
    record = uploads.record(running.services.store, upload)
    assert record is not None
    return uploads.facts(running.services.store, record)


def standing(running: Running, name: str, identity: Identity = WHO) -> Manifest:
    found = product_store.manifest(running.services.store, product_named(name), facts(running, identity))
    assert found is not None
    return found


def outcomes(running: Running) -> dict[str, dict[str, Any]]:
    """Return what every outcome of both models says, but for how it came about."""
    store = running.services.store
    found = [
        Manifest.from_bytes(store.get(keys.PRODUCTS, one.key)) for one in store.list(keys.PRODUCTS, keys.MANIFESTS)
    ]
    return {f"{one.identity.subject} {one.product}": one.model_dump(mode="json", exclude={*VOLATILE}) for one in found}


def spoil(running: Running, name: str, spoiled: Callable[[Any], dict[str, Any]], torch: str = "1.5.0") -> None:
    """Have what stands be another, as an older version of a library made it."""
    store, product = running.services.store, product_named(name)
    stood = standing(running, name)
    held = product_store.load(store, product, stood)
    other: Product = held.model_copy(update=spoiled(held))
    files = []
    for file, (content, media_type) in zip(stood.files, encode(other).values(), strict=True):
        digest = product_store.sha256(content)
        blobs.put(store, digest, content, media_type)
        files.append(file.model_copy(update={"sha256": digest, "size": len(content)}))
    update = {"files": tuple(files), "headline": other.headline(), "software": {**stood.software, "torch": torch}}
    store.put(keys.PRODUCTS, manifest_key(product, facts(running)), stood.model_copy(update=update).to_bytes())


def wrong_outputs(held: Any) -> dict[str, Any]:
    return {"outputs": held.outputs[:, ::-1].copy()}


async def ran(running: Running, **selection: Any) -> dict[str, Any]:
    """Run a plan to its end, and return what query says of it."""
    planned = (await running.query.get("/replays/plan", params=selection)).raise_for_status().json()
    asked = {**selection, "digest": planned["digest"]}
    begun = (await running.query.post("/replays", params=asked)).raise_for_status().json()
    return await until(running, begun["id"], lambda one: one["state"] != "running")


async def until(running: Running, name: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    while True:
        await running.replay.runs.take_up(running.services)
        answer: dict[str, Any] = (await running.query.get(f"/replays/{name}")).raise_for_status().json()
        if holds(answer):
            return answer
        await asyncio.sleep(0.1)


async def accepted(running: Running, name: str) -> dict[str, Any]:
    (await running.query.post(f"/replays/{name}/accept")).raise_for_status()
    return await until(running, name, lambda one: one["accepted"])


def test_what_is_made_once_more_the_same_changes_nothing(directory: Path) -> None:
    async def told(running: Running) -> None:
        before = outcomes(running)
        run = await ran(running, force="true", model="tiny", version="1")
        assert run["computed"] + run["refused"] == run["planned"] == len(before) / 2
        assert (run["changed"], run["failed"], run["none"]) == (0, 0, 0)
        assert outcomes(running) == before
        done = (await accepted(running, run["id"]))["accepted"]
        assert (done["replaced"], done["equal"], done["left"]) == (0, run["planned"], [])
        assert outcomes(running) == before
        # And nothing is kept apart any more, once it has been removed
        await until(running, run["id"], lambda _: not list(running.services.store.list(keys.PRODUCTS, keys.BESIDE)))

    in_the_system(directory, told)


def test_what_an_older_library_made_wrong_is_found_shown_and_replaced_when_accepted(directory: Path) -> None:
    async def told(running: Running) -> None:
        right = outcomes(running)
        rows = running.services.vectors.line(WHO.subject)
        spoil(running, "predictions", wrong_outputs)
        spoil(running, "evaluation", lambda held: {"correct": 0, "accuracy": 0.0}, torch="2.16.0")
        wrong = outcomes(running)
        assert wrong != right
        # When what was made by an older library is made once more
        run = await ran(running, force="true", software_older="torch=2.0", product="predictions")
        # Then that is the one product, with what stands on it, and what differs is said; what stands is as it was
        entries = Run.from_bytes(running.services.store.get(keys.PRODUCTS, keys.replay(run["id"], "plan"))).entries
        assert {one.function for one in entries} == {"predictions", *above("predictions")}
        changed = {one["function"]: one for one in run["changes"]}
        assert set(changed) == {"predictions", "evaluation"}
        assert changed["predictions"]["files"] == ["outputs.npy"]
        assert changed["evaluation"]["figures"]["accuracy"][0] == 0.0
        assert outcomes(running) == wrong
        # When that is accepted, then all is as if the wrong ones had never been
        done = (await accepted(running, run["id"]))["accepted"]
        assert done["replaced"] == 2
        await running.settle()
        assert outcomes(running) == right
        assert running.services.vectors.line(WHO.subject) == rows
        # And the next look finds nothing older
        after = await running.query.get("/replays/plan", params={"force": "true", "software_older": "torch=2.0"})
        assert after.json()["entries"] == []

    in_the_system(directory, told)


def test_the_rows_of_the_index_follow_vectors_that_were_replaced(directory: Path) -> None:
    async def told(running: Running) -> None:
        before = running.services.vectors.line(WHO.subject)
        spoil(running, "layer_vectors", lambda held: {"cka": held.cka[::-1].copy()})
        await running.replay.ask([request(WHO, "index", "its vectors are others")])
        await running.plane.idle()
        assert running.services.vectors.line(WHO.subject) != before
        run = await ran(running, force="true", product="layer_vectors", version="1")
        await accepted(running, run["id"])
        await running.settle()
        assert running.services.vectors.line(WHO.subject) == before

    in_the_system(directory, told)


def test_a_model_of_which_something_did_not_come_is_left_as_it_was(directory: Path) -> None:
    async def told(running: Running) -> None:
        spoil(running, "predictions", wrong_outputs)
        wrong = outcomes(running)
        run = await ran(running, force="true", product="predictions", version="1")
        # Given an outcome that is lost before anybody accepts
        lost = keys.beside(run["id"], manifest_key(product_named("evaluation"), facts(running)))
        running.services.store.remove(keys.PRODUCTS, lost)
        done = (await accepted(running, run["id"]))["accepted"]
        assert done["replaced"] == 0
        assert [(one["subject"], one["function"]) for one in done["left"]] == [(WHO.subject, "evaluation")]
        assert outcomes(running) == wrong

    in_the_system(directory, told)


def test_accepting_is_done_whole_whatever_interrupts_it(directory: Path) -> None:
    async def told(running: Running) -> None:
        right = outcomes(running)
        spoil(running, "predictions", wrong_outputs)
        spoil(running, "evaluation", lambda held: {"correct": 0, "accuracy": 0.0})
        run = await ran(running, force="true", product="predictions", version="1")
        said: list[str] = []
        publish = acceptance.publish

        async def once(services: Any, event: Any) -> None:
            said.append(event.type)
            if len(said) == 1:
                raise Unavailable("the log is away")
            await publish(services, event)

        with mock.patch.object(acceptance, "publish", once):
            done = (await accepted(running, run["id"]))["accepted"]
        assert done["replaced"] == 2
        assert len(said) == 3
        await running.settle()
        assert outcomes(running) == right

    in_the_system(directory, told)


def test_force_alone_selects_what_stands_and_nothing_that_does_not(directory: Path) -> None:
    async def told(running: Running) -> None:
        found = await running.query.get("/replays/plan", params={"force": "true", "refused": "no-history"})
        assert {one["function"] for one in found.json()["entries"]} == {"training_history", "findings"}
        for wrong in ({"software_older": "torch=2.0"}, {"refused": "x"}, {"force": "true", "state": "failed"}):
            answer = await running.query.get("/replays/plan", params=wrong)
            assert (answer.status_code, answer.json()["code"]) == (422, "contradiction"), wrong
        nowhere = await running.query.post("/replays/20200101T000000-00000000/accept")
        assert nowhere.status_code == 404
        # Given a run of what was missing, there is nothing to accept
        store, place = running.services.store, manifest_key(product_named("summary"), facts(running))
        store.remove(keys.PRODUCTS, place)
        run = await ran(running, product="summary")
        assert (run["computed"], run["beside"]) == (1, 0)
        answer = await running.query.post(f"/replays/{run['id']}/accept")
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing-to-accept")

    in_the_system(directory, told)


def refused_as(running: Running, identity: Identity, code: str) -> UploadRecord:
    """Have an upload be one that was refused, as by an older release; return what is now written of it."""
    upload = uploads.current(running.services.store, identity)
    assert upload is not None
    admitted = uploads.record(running.services.store, upload)
    assert admitted is not None
    refusal = Refusal(code=code, message="An older release could not read it.")
    update = {"state": "refused", "content": None, "content_size": 0, "refusal": refusal, "event": "older"}
    refused = admitted.model_copy(update=update)
    running.services.store.put(keys.PRODUCTS, upload.record_key, refused.to_bytes())
    return refused


def recorded(running: Running, identity: Identity) -> UploadRecord:
    upload = uploads.current(running.services.store, identity)
    assert upload is not None
    found = uploads.record(running.services.store, upload)
    assert found is not None
    return found


def test_an_upload_that_was_refused_is_read_once_more_in_its_place(directory: Path) -> None:
    async def told(running: Running) -> None:
        admitted, stays = recorded(running, WHO), recorded(running, OTHER)
        refused_as(running, WHO, "unknown-architecture")
        other = await running.query.get("/replays/plan", params={"force": "true", "refused": "no-model"})
        assert other.json()["entries"] == []
        # When the uploads that were refused with this code are read once more
        run = await ran(running, force="true", refused="unknown-architecture")
        # Then it is this one, it is admitted now, and its products, which are there, stand on it as before
        assert (run["planned"], run["computed"], run["refused"], run["beside"]) == (1, 1, 0, 0)
        assert recorded(running, WHO).content == admitted.content
        assert recorded(running, OTHER) == stays
        await running.settle()
        assert (await running.query.get(f"/models/{WHO.subject}")).json()["state"] == "complete"
        # And there is nothing to accept
        answer = await running.query.post(f"/replays/{run['id']}/accept")
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing-to-accept")

    in_the_system(directory, told)


def test_an_upload_that_is_refused_again_is_told_as_refused(directory: Path) -> None:
    async def told(running: Running) -> None:
        await running.put("digits/broken/1.safetensors", b"this is no model")
        await running.settle()
        broken = Identity("digits", "broken", "1")
        before = recorded(running, broken)
        assert before.refusal is not None
        run = await ran(running, force="true", product="admit")
        assert (run["planned"], run["computed"], run["refused"]) == (1, 0, 1)
        after = recorded(running, broken)
        assert (after.refusal, after.event != before.event) == (before.refusal, True)
        # And a run that begins from the plan as it was leaves what was read meanwhile alone
        store = running.services.store
        entry = Run.from_bytes(store.get(keys.PRODUCTS, keys.replay(run["id"], "plan"))).entries[0]
        runs.withdraw(store, entry)
        assert recorded(running, broken) == after

    in_the_system(directory, told)
