"""kill -9 of a replica in a stream of a thousand requests: none is lost, none is answered wrongly."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import torch

from layerscope.functions.stage.messages import write_request
from tests.functions.stage_process import StageProcess
from tests.functions.test_stage import Stored, images, outputs, whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REQUESTS, CALLERS = 1_000, 4


def test_a_replica_that_is_killed_and_comes_back_loses_and_falsifies_nothing(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    cut = stored.cuts[len(stored.cuts) // 2]
    batches = [images(1, seed) for seed in range(20)]
    expected = [whole(stored, batch) for batch in batches]
    waiting = iter(range(REQUESTS))
    took: dict[int, float] = {}

    async def one(client: httpx.AsyncClient, address: str, number: int) -> None:
        request = stored.request((cut,), batches[number % len(batches)])
        path, headers, body = write_request(request, 0, request.inputs)
        start = time.perf_counter()
        answer = await client.post(address + path, headers={"layerscope-seconds-left": "300", **headers}, content=body)
        took[number] = time.perf_counter() - start
        assert torch.equal(outputs(answer), expected[number % len(batches)]), number

    async def asked() -> None:
        async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
            await one(client, first.address, 0)

            async def some() -> None:
                for number in waiting:
                    if number == REQUESTS // 3:
                        replicas[0].kill()
                    if number == 2 * REQUESTS // 3:
                        back = await asyncio.to_thread(StageProcess, tmp_path, "a", (), replicas[0].port)
                        ended.callback(back.kill)
                    await one(client, first.address, number)

            await asyncio.gather(*(some() for _ in range(CALLERS)))

    with ExitStack() as ended:
        replicas = [StageProcess(tmp_path, name) for name in ("a", "b")]
        first = StageProcess(tmp_path, "first", ((), [one.address for one in replicas]))
        for process in (*replicas, first):
            ended.callback(process.kill)
        asyncio.run(asked())

    assert len(took) == REQUESTS
    for name, begin, end in (("before", 50, 333), ("while it is down", 333, 667), ("after", 667, 1000)):
        found = sorted(took[number] for number in range(begin, end))
        print(f"{name}: p50 {found[len(found) // 2] * 1e3:.0f} ms, p99 {found[int(len(found) * 0.99)] * 1e3:.0f} ms")
