"""Stages over HTTP: the same bits as the whole model, of their own tensors only, whoever is asked and in whatever order."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from torch import Tensor, nn

from layerscope.functions.analysis.inference import inference
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Limits, Services
from layerscope.functions.stage.func import MOST_AT_ONCE, StageFunction, room
from layerscope.functions.stage.messages import StageRequest, Tensors, read_answer, write_request
from layerscope.functions.weight_sketch import func as weight_sketch
from layerscope.models import safe_form
from layerscope.models.stages import cuts, functional
from layerscope.models.stages.wire import received, sent
from layerscope.schemas import keys
from layerscope.schemas.digests import canonical_json, sha256
from layerscope.stores import blobs
from layerscope.stores.directory_store import DirectoryStore
from tests.functions.bucket import services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Wide(nn.Module):
    """A residual network whose tensors are larger than what is read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden, self.last = nn.Linear(1024, 300), nn.Linear(300, 10)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.conv(x) + x)
        found: Tensor = self.last(self.relu(self.hidden(self.pool(x).flatten(1))))
        return found


class Reading(DirectoryStore):
    """A bucket that writes down which bytes of which objects are read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.spans: list[tuple[int, int] | None] = []

    def get(self, bucket: str, key: str, *, etag: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        self.spans.append(span)
        return super().get(bucket, key, etag=etag, span=span)


class Stored:
    """A model in a bucket, the cuts that it has, and the digest of what its tensors are checked by."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        packed = safe_form.pack(Wide().eval())
        self.folder = folder
        self.model = safe_form.build(safe_form.read(packed))
        self.content = sha256(packed)
        self.size = len(packed)
        graph = functional(self.model.safe_graph)
        self.cuts = tuple(cut.after for cut in cuts(graph) if len(cut.values) == 1)
        self.first = "v0"
        store = services(folder).store
        blobs.put(store, self.content, packed)
        sketch = weight_sketch.compute(self.model, "cpu")
        said = canonical_json(sketch.model_dump(mode="json", exclude={"rows"}))
        self.tensors = sha256(said)
        blobs.put(store, self.tensors, said)

    def services(self, name: str) -> tuple[Services, Reading]:
        """Return services of one replica over the bucket, with a scratch of its own."""
        plain, store = services(self.folder), Reading(self.folder)
        return Services(store, plain.vectors, plain.cache, plain.log, self.folder / f".scratch-{name}"), store

    def request(self, chosen: Sequence[int], images: Tensor, tensors: str | None = None) -> StageRequest:
        one = sent("v0", images)
        said = self.tensors if tensors is None else tensors
        return StageRequest(self.content, tuple(chosen), said, 0, "test", Tensors((one.entry,), (one.content,)))


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


class Replica:
    """One process's worth of stages, served at 127.0.0.1."""

    def __init__(self, given: Services, addresses: tuple[tuple[str, ...], ...], port: int = 0) -> None:
        self.function = StageFunction()
        self.function.attach(given, addresses)
        config = uvicorn.Config(
            application(self.function), host="127.0.0.1", port=port, log_level="error", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self._serving = asyncio.get_running_loop().create_task(self.server.serve())

    async def started(self) -> str:
        while not self.server.started:
            await asyncio.sleep(0.01)
        (socket,) = self.server.servers[0].sockets
        return f"http://127.0.0.1:{socket.getsockname()[1]}"

    async def end(self) -> None:
        self.function.stop()
        self.server.should_exit = self.server.force_exit = True
        await self._serving


@asynccontextmanager
async def pools(stored: Stored, count: int) -> AsyncIterator[tuple[str, list[Reading]]]:
    """Serve as many stages, each by a replica of its own, the last first; yields the first's address."""
    replicas, stores, addresses = [], [], [()] * count
    async with AsyncExitStack():
        for number in reversed(range(count)):
            given, store = stored.services(str(number))
            replica = Replica(given, tuple(addresses))
            replicas.append(replica)
            stores.insert(0, store)
            addresses[number] = (await replica.started(),)  # type: ignore[call-overload]
        try:
            yield addresses[0][0], stores  # type: ignore[misc]
        finally:
            for replica in replicas:
                await replica.end()


def run(asked: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asked())  # type: ignore[arg-type]


async def post(address: str, request: StageRequest, headers: Mapping[str, str] | None = None) -> httpx.Response:
    path, own, body = write_request(request, request.number, request.inputs)
    async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
        return await client.post(
            address + path, headers={"layerscope-seconds-left": "300", **own, **(headers or {})}, content=body
        )


def outputs(answer: httpx.Response) -> Tensor:
    assert answer.status_code == 200, answer.text
    tensors, _ = read_answer(answer.headers, memoryview(answer.content))
    found = received(tensors.entries[0], bytearray(tensors.contents[0]))
    assert isinstance(found, Tensor)
    return found


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def whole(stored: Stored, batch: Tensor) -> Tensor:
    with inference():
        found = stored.model(batch)
    assert isinstance(found, Tensor)
    return found


def test_one_two_and_three_stages_give_the_bits_of_the_whole(stored: Stored) -> None:
    middle, third = stored.cuts[len(stored.cuts) // 2], stored.cuts[-2]

    async def asked() -> None:
        for chosen in ((), (middle,), (middle, third)):
            async with pools(stored, len(chosen) + 1) as (address, _):
                for seed in range(3):
                    batch = images(seed=seed)
                    answer = await post(address, stored.request(chosen, batch))
                    assert torch.equal(outputs(answer), whole(stored, batch)), chosen
                    _, spent = read_answer(answer.headers, memoryview(answer.content))
                    assert len(spent.seconds) == len(spent.bytes) == len(chosen) + 1

    run(asked)


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_in_parts_the_outputs_are_those_of_the_whole_for_each_part(stored: Stored, size: int) -> None:
    middle, batch = stored.cuts[len(stored.cuts) // 2], images(7)

    async def asked() -> None:
        async with pools(stored, 2) as (address, _):
            answer = await post(address, replace(stored.request((middle,), batch), micro_batch=size))
            assert torch.equal(outputs(answer), torch.cat([whole(stored, part) for part in batch.split(size)]))
            _, spent = read_answer(answer.headers, memoryview(answer.content))
            assert len(spent.seconds) == 2 and spent.bytes[1] == 7 * 10 * 4

    run(asked)


def test_a_part_that_fails_is_the_answer_and_the_replica_goes_on(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 2) as (address, _):
            wrong = replace(stored.request((9_999,), images(6)), micro_batch=2)
            answer = await post(address, wrong)
            assert answer.status_code == 404 and "cannot be cut after step 9999" in answer.json()["error"]
            good = replace(stored.request(stored.cuts[:1], images(6)), micro_batch=2)
            assert (await post(address, good)).status_code == 200

    run(asked)


def test_a_stage_reads_its_own_tensors_by_range_and_no_others(stored: Stored) -> None:
    cut = stored.cuts[-5]  # before the hidden layer, whose weights are four fifths of the model's

    async def asked() -> None:
        async with pools(stored, 2) as (address, stores):
            outputs(await post(address, stored.request((cut,), images())))
            for store, least, most in ((stores[0], 0.1, 0.2), (stores[1], 0.8, 0.9)):
                read = sum(end - begin for begin, end in filter(None, store.spans))
                assert least * stored.size < read < most * stored.size
            before = [len(store.spans) for store in stores]
            outputs(await post(address, stored.request((cut,), images(seed=5))))
            assert [len(store.spans) for store in stores] == before

    run(asked)


def test_where_the_digests_of_tensors_are_not_known_the_whole_file_is_checked(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 2) as (address, stores):
            batch = images()
            for tensors in ("", "9" * 64):
                answer = await post(address, stored.request(stored.cuts[:1], batch, tensors))
                assert torch.equal(outputs(answer), whole(stored, batch))
            assert not list(filter(None, stores[0].spans))

    run(asked)


def test_one_replica_can_be_all_stages(stored: Stored) -> None:
    async def asked() -> None:
        given, _ = stored.services("one")
        last = Replica(given, ())
        address = await last.started()
        other = Replica(stored.services("two")[0], ((address,),))  # a pool of one: asked for every stage behind
        first = await other.started()
        try:
            batch = images()
            answer = await post(first, stored.request(stored.cuts[:1], batch))
            assert torch.equal(outputs(answer), whole(stored, batch))
        finally:
            await other.end()
            await last.end()

    run(asked)


def test_a_pool_that_is_every_stage_of_a_plan_answers_more_callers_than_it_has_places(stored: Stored) -> None:
    """A replica that asks itself must not hold the places that it waits for."""

    async def asked() -> None:
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        only = Replica(stored.services("only")[0], ((address,),), port)
        await only.started()
        try:
            outputs(await post(address, stored.request(stored.cuts[1:3], images())))
            batches = [images(1, seed) for seed in range(2 * MOST_AT_ONCE)]
            for _ in range(2):
                answers = await asyncio.gather(
                    *(patient(address, stored.request(stored.cuts[1:3], batch)) for batch in batches)
                )
                for answer, batch in zip(answers, batches, strict=True):
                    assert torch.equal(outputs(answer), whole(stored, batch))
        finally:
            await only.end()

    run(asked)


def test_later_stages_have_places_that_earlier_ones_may_not_use() -> None:
    for stages in range(1, 9):
        places = [room(number, stages) for number in range(stages)]
        assert places == sorted(places) and len(set(places)) == stages and places[0] >= 1
        assert places[-1] == MOST_AT_ONCE


async def patient(address: str, request: StageRequest) -> httpx.Response:
    """Ask as a caller does who is told to come again."""
    while True:
        answer = await post(address, request)
        if answer.status_code != 429:
            return answer
        await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def test_what_a_stage_further_behind_says_is_not_asked_for_again(stored: Stored) -> None:
    asked_last: list[str] = []

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        asked_last.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        body = json.dumps({"error": "full"}).encode()
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def asked() -> None:
        server = uvicorn.Server(
            uvicorn.Config(refusing, host="127.0.0.1", port=free_port(), log_level="error", lifespan="off")
        )
        serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        last = f"http://127.0.0.1:{server.config.port}"
        middle = Replica(stored.services("middle")[0], ((), (), (last,)))
        between = await middle.started()
        first = Replica(stored.services("first")[0], ((), (between,), ()))
        address = await first.started()
        try:
            answer = await post(address, stored.request(stored.cuts[1:3], images()))
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert "full" in answer.json()["error"] and len(asked_last) == 2  # as often as a full replica is asked
        finally:
            await first.end()
            await middle.end()
            server.should_exit = True
            await serving

    run(asked)


def test_a_caller_who_waits_no_longer_is_not_computed_for_when_the_turn_comes(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            outputs(await post(address, stored.request((), images())))
            long = asyncio.ensure_future(post(address, stored.request((), images(2_000))))
            await asyncio.sleep(0.3)
            late = await post(address, stored.request((), images()), {"layerscope-seconds-left": "0.1"})
            assert late.status_code == 504 and "before this stage began" in late.json()["error"]
            outputs(await long)

    run(asked)


def test_stages_that_are_not_used_make_room_on_the_disk(stored: Stored) -> None:
    folder = stored.folder / ".scratch-few" / "stages"

    async def asked() -> None:
        given, _ = stored.services("few")
        few = Services(given.store, given.vectors, given.cache, given.log, given.scratch, Limits(inference_mb=1))
        replica = Replica(few, ())
        address = await replica.started()
        try:
            for cut in stored.cuts[1:6]:
                answer = await post(address, replace(stored.request((cut,), images()), number=0))
                assert answer.status_code == 503  # there is no second stage; the first was brought and run
        finally:
            await replica.end()
        kept = [one for one in folder.iterdir() if not one.name.endswith((".header", ".digests"))]
        assert len(kept) >= 1 and sum(one.stat().st_blocks * 512 for one in kept) < 2 * 2**20
        assert not list(folder.glob(".*.partial"))

    run(asked)


def test_a_replica_that_ends_in_a_stream_of_requests_loses_none(stored: Stored) -> None:
    cut = stored.cuts[len(stored.cuts) // 2]

    async def asked() -> None:
        replicas = [Replica(stored.services(name)[0], ()) for name in ("a", "b")]
        addresses = tuple([await one.started() for one in replicas])
        first = Replica(stored.services("first")[0], ((), addresses))
        address = await first.started()
        batches = [images(1, seed) for seed in range(60)]
        try:
            outputs(await post(address, stored.request((cut,), batches[0])))
            for number, batch in enumerate(batches):
                if number == 20:
                    await replicas[0].end()
                answer = await post(address, stored.request((cut,), batch))
                assert torch.equal(outputs(answer), whole(stored, batch)), number
        finally:
            await first.end()
            await replicas[1].end()

    run(asked)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"cuts": (9_999,)}, 404, "cannot be cut after step"),
        ({"content": "0" * 64}, 404, "There is no model"),
        ({"content": "0" * 64, "tensors": ""}, 404, "There is no model"),
    ],
)
def test_what_there_is_not_is_told(stored: Stored, change: dict[str, Any], status: int, says: str) -> None:
    async def asked() -> httpx.Response:
        async with pools(stored, 1) as (address, _):
            return await post(address, replace(stored.request((), images()), **change))

    answer = run(asked)
    assert answer.status_code == status and says in answer.json()["error"]


def test_inputs_that_are_not_the_stages_are_refused(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            request = stored.request((), images())
            named = Tensors(({**request.inputs.entries[0], "name": "v7"},), request.inputs.contents)
            answer = await post(address, replace(request, inputs=named))
            assert answer.status_code == 400 and "begins with v0, not v7" in answer.json()["error"]
            shaped = Tensors(({**request.inputs.entries[0], "shape": [2, 1, 12, 13]},), request.inputs.contents)
            answer = await post(address, replace(request, inputs=shaped))
            assert answer.status_code == 400 and answer.json()["code"] == "bad-tensor"

    run(asked)


def test_a_stored_tensor_that_was_changed_is_not_computed_with(stored: Stored, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    content = bytearray(store.get(keys.PRODUCTS, keys.blob(stored.content)))
    content[-8:] = b"\x00\x00\x80\x3f" * 2
    store.put(keys.PRODUCTS, keys.blob(stored.content), bytes(content))

    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            answer = await post(address, stored.request((), images()))
            assert answer.status_code == 503 and "is not what it was" in answer.json()["error"]
            # and it is set aside, so that repair makes it again
            there = store.head(keys.PRODUCTS, keys.blob(stored.content))
            assert there is not None and there.size == 0
            answer = await post(address, stored.request((), images()))
            assert answer.status_code == 503 and "made again" in answer.json()["error"]

    run(asked)


def test_a_caller_without_time_is_not_computed_for(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            for said, status in (("0", 504), ("-5", 504), ("x", 400), ("nan", 400), ("inf", 400)):
                answer = await post(address, stored.request((), images()), {"layerscope-seconds-left": said})
                assert answer.status_code == status

    run(asked)


def test_more_requests_than_the_queue_has_room_for_are_turned_away_at_once(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            batch = images(64)
            answers = await asyncio.gather(
                *(post(address, stored.request((), batch)) for _ in range(10 * MOST_AT_ONCE))
            )
            statuses = [one.status_code for one in answers]
            assert set(statuses) == {200, 429} and statuses.count(200) >= MOST_AT_ONCE
            assert {one.headers["retry-after"] for one in answers if one.status_code == 429} == {"1"}
            for one in answers:
                if one.status_code == 200:
                    assert torch.equal(outputs(one), whole(stored, batch))

    run(asked)


def test_a_next_stage_that_is_nowhere_is_told(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            answer = await post(address, stored.request(stored.cuts[:1], images()))
            assert answer.status_code == 503 and "LAYERSCOPE_STAGE_URLS" in answer.json()["error"]

    run(asked)


def test_what_is_no_request_is_told_why(stored: Stored) -> None:
    async def asked() -> None:
        async with pools(stored, 1) as (address, _), httpx.AsyncClient(timeout=60, trust_env=False) as client:
            path = f"{address}/v2/models/{stored.content}/versions/0/infer"
            assert (await client.get(path)).status_code == 400
            assert (await client.post(path, content=b"")).status_code == 400
            assert (await client.post(f"{address}/elsewhere", content=b"{}")).status_code == 400
            # told by the length that is announced, before anything of the body is there
            reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            route = path.removeprefix(address)
            writer.write(f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {65 * 2**20}\r\n\r\n".encode())
            assert b" 413 " in await reader.readline()
            writer.close()
            await writer.wait_closed()
            text = json.dumps({"error": 1}).encode()
            assert (await client.post(path, content=text)).status_code == 400

    run(asked)


def test_no_thread_or_process_is_left_behind(stored: Stored) -> None:
    before = threading.active_count()

    async def asked() -> None:
        async with pools(stored, 1) as (address, _):
            outputs(await post(address, stored.request((), images())))

    run(asked)
    assert threading.active_count() <= before + 1  # asyncio's own pool ends with its loop
