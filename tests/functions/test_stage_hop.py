"""The next stage: the replica with the fewest requests is asked, another where it does not answer, until time is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest

from layerscope.functions.stage.hop import PASSED_ON, Late, Replicas
from layerscope.functions.stage.messages import SECONDS_LEFT

ONE, TWO = "http://one", "http://two"
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def run(answer: Answer, asked: Callable[[Replicas], Awaitable[object]], *addresses: str) -> object:
    async def running() -> object:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await asked(Replicas(addresses or (ONE, TWO), client))

    return asyncio.run(running())


def test_requests_go_to_the_replica_with_the_fewest_under_way() -> None:
    hosts: Counter[str] = Counter()

    async def answer(request: httpx.Request) -> httpx.Response:
        hosts[request.url.host] += 1
        await asyncio.sleep(0.05 if request.url.host == "one" else 0.01)
        return httpx.Response(200)

    async def many(replicas: Replicas) -> None:
        async def some() -> None:
            for _ in range(10):
                await replicas.send("/x", {}, b"", 30)

        await asyncio.gather(*(some() for _ in range(4)))

    run(answer, many)
    assert hosts.total() == 40 and hosts["two"] > 1.5 * hosts["one"]  # five times as fast, and never idle


def test_a_replica_that_is_gone_costs_no_request() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one":
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=request.content)

    async def many(replicas: Replicas) -> list[bytes]:
        return [(await replicas.send("/x", {}, str(k).encode(), 30)).content for k in range(20)]

    assert run(answer, many) == [str(k).encode() for k in range(20)]


def test_a_replica_that_comes_back_is_waited_for_and_given_the_same_bytes() -> None:
    bodies: list[bytes] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        if len(bodies) < 4:
            raise httpx.ReadError("reset")
        return httpx.Response(200)

    async def once(replicas: Replicas) -> int:
        return (await replicas.send("/x", {}, b"same", 30)).status_code

    assert run(answer, once, ONE) == 200 and set(bodies) == {b"same"}


def test_where_all_are_busy_the_caller_is_told_soon() -> None:
    asked = Counter[str]()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked[request.url.host] += 1
        return httpx.Response(429)

    async def once(replicas: Replicas) -> int:
        return (await replicas.send("/x", {}, b"", 30)).status_code

    assert run(answer, once) == 429 and asked == {"one": 2, "two": 2}


def test_a_bug_is_asked_for_once_more() -> None:
    asked = Counter[str]()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked[request.url.host] += 1
        return httpx.Response(500)

    async def once(replicas: Replicas) -> int:
        return (await replicas.send("/x", {}, b"", 600)).status_code

    assert run(answer, once, ONE) == 500 and asked["one"] == 2


def test_a_replica_that_hangs_leaves_time_for_the_others() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one":
            await asyncio.sleep(60)
        return httpx.Response(200)

    async def once(replicas: Replicas) -> int:
        return (await replicas.send("/x", {}, b"", 2)).status_code

    assert run(answer, once) == 200


def test_what_was_passed_on_is_given_at_once() -> None:
    asked = Counter[str]()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked[request.url.host] += 1
        return httpx.Response(503, headers={PASSED_ON: "true"})

    async def once(replicas: Replicas) -> int:
        return (await replicas.send("/x", {}, b"", 30)).status_code

    assert run(answer, once) == 503 and asked.total() == 1


def test_an_answer_that_no_repetition_changes_is_given_at_once() -> None:
    asked = Counter[str]()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked[request.url.host] += 1
        return httpx.Response(404)

    async def once(replicas: Replicas) -> int:
        return (await replicas.send("/x", {}, b"", 30)).status_code

    assert run(answer, once) == 404 and asked.total() == 1


def test_each_try_says_how_much_time_is_left_and_none_begins_after_that() -> None:
    left: list[float] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        left.append(float(request.headers[SECONDS_LEFT]))
        raise httpx.ConnectError("refused")

    async def once(replicas: Replicas) -> None:
        await replicas.send("/x", {}, b"", 0.5)

    with pytest.raises(Late, match=r"within 0\.5 s"):
        run(answer, once, ONE)
    assert left == sorted(left, reverse=True) and 0 < left[-1] <= left[0] <= 0.5
