"""One contract for the cache, in memory and in Redis; and what Redis may do to its readers: nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from layerscope.schemas.errors import Unavailable
from layerscope.stack import servers
from layerscope.stack.ports import free_ports
from layerscope.stores.cache import ANSWER_SECONDS, HELD_SECONDS, PAUSE_SECONDS, Cache, MemoryCache, RedisCache

PASSWORD = "a-secret-of-the-tests"


class Redis:
    """A Redis of our own, which can be killed, held and started again; it keeps nothing."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        self.process = servers.redis(directory, self.port, PASSWORD)
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        directory.mkdir()
        if self.process.prepare:
            self.process.prepare()

    def start(self) -> None:
        self.child = subprocess.Popen(
            self.process.command,
            cwd=self.process.directory,
            env=dict(self.process.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not self.process.ready():
            assert self.child.poll() is None and time.monotonic() < deadline, "Redis does not start"
            time.sleep(0.02)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait(10)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    one = Redis(tmp_path_factory.mktemp("redis") / "data")
    if not shutil.which(one.process.command[0]):
        message = "Redis is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    one.start()
    yield one
    one.kill()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
def make(request: pytest.FixtureRequest) -> Callable[[], Cache]:
    if request.param == "memory":
        return MemoryCache
    url = request.getfixturevalue("redis").url
    return lambda: RedisCache(url)


@asynccontextmanager
async def opened(make: Callable[[], Cache]) -> AsyncIterator[Cache]:
    cache = make()
    try:
        yield cache
    finally:
        await cache.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(300):
            await test()

    asyncio.run(bounded())


def test_a_value_is_kept_as_it_is_for_its_time(make: Callable[[], Cache]) -> None:
    async def test() -> None:
        async with opened(make) as cache:
            assert await cache.get("kept") is None
            await cache.set("kept", b"\x00\xff{}")
            await cache.set("brief", b"1", seconds=0.05)
            await cache.set("kept", b"\x00\xff{}", seconds=30)
            assert await cache.get("kept") == b"\x00\xff{}"
            await asyncio.sleep(0.1)
            assert await cache.get("brief") is None
            assert await cache.get("kept") == b"\x00\xff{}"

    run(test)


def test_the_token_stays_until_it_is_bumped_and_never_returns(make: Callable[[], Cache]) -> None:
    async def test() -> None:
        async with opened(make) as cache:
            seen = [await cache.generation()]
            for _ in range(5):
                assert await cache.generation() == seen[-1]
                await cache.bump()
                seen.append(await cache.generation())
            assert None not in seen
            assert len(set(seen)) == 6

    run(test)


def test_a_change_of_some_parts_moves_the_tokens_that_depend_on_them_and_no_others(make: Callable[[], Cache]) -> None:
    asked = [("a",), ("b",), ("a", "b"), ("b", "c"), ()]

    async def test() -> None:
        async with opened(make) as cache:

            async def moved(parts: Collection[str] | None) -> list[bool]:
                before = [await cache.generation(one) for one in asked]
                await cache.bump(parts)
                after = [await cache.generation(one) for one in asked]
                assert None not in (*before, *after)
                return [old != new for old, new in zip(before, after, strict=True)]

            assert await moved(["a"]) == [True, False, True, False, True]
            assert await moved({"b", "c"}) == [False, True, True, True, True]
            assert await moved([]) == [False, False, False, False, True]
            assert await moved(None) == [True] * 5
            assert await cache.generation(["b", "a", "a"]) == await cache.generation(("a", "b"))

    run(test)


def test_memory_keeps_the_values_used_last() -> None:
    async def test() -> None:
        cache = MemoryCache(entries=2)
        for key in ("a", "b"):
            await cache.set(key, key.encode())
        await cache.get("a")
        await cache.set("c", b"c")
        assert [await cache.get(key) for key in "abc"] == [b"a", None, b"c"]

    run(test)


@pytest.mark.services
def test_a_bump_is_seen_by_other_processes_and_by_many_first_readers_alike(redis: Redis) -> None:
    async def test() -> None:
        caches = [RedisCache(redis.url) for _ in range(4)]
        assert len(set(await asyncio.gather(*(one.generation() for one in caches)))) == 1
        await caches[0].bump()
        await asyncio.sleep(HELD_SECONDS * 2)
        after = await asyncio.gather(*(one.generation() for one in caches))
        assert len(set(after)) == 1
        await caches[1].set("shared", b"1")
        assert await caches[2].get("shared") == b"1"
        for one in caches:
            await one.close()

    run(test)


@pytest.mark.services
def test_readers_do_without_a_redis_that_is_down_and_the_writer_is_told(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with opened(lambda: RedisCache(redis.url)) as cache:
            before = await cache.generation()
            await cache.set("kept", b"1")
            redis.kill()
            await asyncio.sleep(HELD_SECONDS * 2)
            start = time.monotonic()
            for _ in range(50):
                await cache.set("kept", b"1")
                assert (await cache.get("kept"), await cache.generation()) == (None, None)
            assert time.monotonic() - start < 1
            with pytest.raises(Unavailable) as told:
                await cache.bump()
            assert PASSWORD not in str(told.value)
            redis.start()
            await asyncio.sleep(PAUSE_SECONDS)
            after = await cache.generation()
            assert after not in (None, before)
            assert await cache.get("kept") is None
            await cache.bump()

    run(test)
    told = [record.getMessage() for record in caplog.records if record.name == "layerscope.stores.cache"]
    assert [line.split(",")[0].split(" the ")[0] for line in told] == [
        "the cache does not answer",
        "the cache answers again",
    ]
    assert PASSWORD not in caplog.text


@pytest.mark.services
def test_a_redis_that_does_not_answer_holds_nobody_up_for_long(redis: Redis) -> None:
    async def test() -> None:
        async with opened(lambda: RedisCache(redis.url)) as cache:
            await cache.generation()
            os.kill(redis.child.pid, signal.SIGSTOP)
            try:
                start = time.monotonic()
                assert await cache.get("kept") is None
                assert await cache.generation() is None or time.monotonic() - start < HELD_SECONDS
                assert time.monotonic() - start < 3 * ANSWER_SECONDS
            finally:
                os.kill(redis.child.pid, signal.SIGCONT)

    run(test)


@pytest.mark.services
def test_a_restart_costs_a_reader_nothing(redis: Redis) -> None:
    async def test() -> None:
        async with opened(lambda: RedisCache(redis.url)) as cache:
            before = await cache.generation()
            redis.kill()
            redis.start()
            await asyncio.sleep(HELD_SECONDS * 2)
            assert await cache.generation() not in (None, before)  # the old connection is broken, and is replaced

    run(test)
