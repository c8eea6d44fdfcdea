"""A crash in the worker is a failed attempt, never a dead function."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from layerscope.functions.runtime.worker import Worker
from layerscope.schemas.errors import Refused, WorkFailed


def pid() -> int:
    return os.getpid()


def refuse() -> None:
    raise Refused("too-odd", "It is odd.", "make it even")


def stumble() -> None:
    raise ZeroDivisionError("a secret: hunter2")


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(status: int) -> None:
    os._exit(status)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def spin(cpu_seconds: float) -> str:
    until = time.process_time() + cpu_seconds
    while time.process_time() < until:
        pass
    return "spun"


def grow(megabytes: int) -> int:
    held = [bytearray(os.urandom(1 << 20)) for _ in range(megabytes)]
    time.sleep(5)
    return len(held)


@asynccontextmanager
async def working(seconds: float = 20, memory_mb: int = 2_048) -> AsyncIterator[Worker]:
    worker = Worker(seconds, memory_mb)
    try:
        yield worker
    finally:
        worker.stop()


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@pytest.mark.slow
@in_loop
async def test_the_child_is_another_process_and_stays_warm() -> None:
    async with working() as worker:
        first = await worker.run(pid)
        assert first != os.getpid()
        assert await worker.run(pid) == first


@pytest.mark.slow
@in_loop
async def test_a_refusal_comes_through_whole() -> None:
    async with working() as worker:
        with pytest.raises(Refused) as caught:
            await worker.run(refuse)
        assert (caught.value.code, caught.value.message, caught.value.hint) == ("too-odd", "It is odd.", "make it even")


@pytest.mark.slow
@in_loop
async def test_a_bug_is_a_failed_attempt_that_names_the_error_and_not_its_text() -> None:
    async with working() as worker:
        with pytest.raises(WorkFailed, match="ZeroDivisionError") as caught:
            await worker.run(stumble)
        assert "hunter2" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_killed_child_is_a_failed_attempt_and_the_next_call_works(number: int) -> None:
    async def scenario() -> None:
        async with working() as worker:
            with pytest.raises(WorkFailed, match=signal.Signals(number).name):
                await worker.run(die, number)
            assert await worker.run(sleep, 0.0) == "slept"

    asyncio.run(scenario())


@pytest.mark.slow
@in_loop
async def test_a_child_that_exits_is_a_failed_attempt() -> None:
    async with working() as worker:
        with pytest.raises(WorkFailed, match="status 3"):
            await worker.run(leave, 3)


@pytest.mark.slow
@in_loop
async def test_a_call_past_its_time_limit_is_ended() -> None:
    async with working(seconds=2) as worker:
        with pytest.raises(WorkFailed, match=r"longer than its limit of 2 s"):
            await worker.run(spin, 600.0)
        assert await worker.run(sleep, 0.0) == "slept"


@pytest.mark.slow
@in_loop
async def test_a_call_past_its_memory_limit_is_ended() -> None:
    async with working(memory_mb=200) as worker:
        with pytest.raises(WorkFailed, match="its limit is 200 MB"):
            await worker.run(grow, 1_000)
        assert await worker.run(sleep, 0.0) == "slept"


@pytest.mark.slow
@in_loop
async def test_calls_are_made_one_at_a_time_and_the_loop_goes_on_meanwhile() -> None:
    async with working() as worker:
        await worker.run(pid)
        calls = asyncio.gather(worker.run(sleep, 0.3), worker.run(sleep, 0.3))
        longest, last, start = 0.0, time.monotonic(), time.monotonic()
        while not calls.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert await calls == ["slept", "slept"]
        assert time.monotonic() - start >= 0.6
        assert longest < 0.25


@pytest.mark.slow
@in_loop
async def test_a_cancelled_call_frees_the_worker() -> None:
    async with working() as worker:
        call = asyncio.create_task(worker.run(sleep, 60.0))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await worker.run(sleep, 0.0) == "slept"


@pytest.mark.slow
@in_loop
async def test_a_worker_may_be_stopped_while_its_child_starts() -> None:
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016):
        async with working() as worker:
            call = asyncio.ensure_future(worker.run(pid))
            await asyncio.sleep(delay)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import asyncio\n"
        "from layerscope.functions.runtime.worker import Worker\n"
        "from tests.functions.runtime.test_worker import pid\n"
        "print('trained', flush=True)\n"
        "worker = Worker(60, 2048)\n"
        "assert asyncio.run(worker.run(pid)) > 0\n"
        "worker.stop()\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "trained\n", "")


@pytest.mark.slow
def test_no_computation_outlives_its_function(tmp_path: Path) -> None:
    script = tmp_path / "function.py"
    script.write_text(
        "import asyncio, os, sys, threading, time\n"
        "from layerscope.functions.runtime.worker import Worker\n"
        "from tests.functions.runtime.test_worker import pid, sleep\n"
        "async def main():\n"
        "    worker = Worker(60, 2048)\n"
        "    print(await worker.run(pid), flush=True)\n"
        "    await worker.run(sleep, 60.0)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    function = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert function.stdout is not None
    child = int(function.stdout.readline())
    function.kill()
    function.wait()
    function.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
