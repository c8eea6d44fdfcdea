"""Workers that several functions share: turns go round, quiet workers do not start, one that dies takes one call with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from layerscope.functions.runtime.computation import warm
from layerscope.functions.runtime.worker import Worker
from layerscope.functions.runtime.worker_pool import Share, WorkerPool
from layerscope.schemas.errors import WorkerDied, WorkerNotStarted
from tests.functions.runtime.test_worker import die, in_loop, pid, sleep

QUIET: Callable[[], None] = partial(warm, ())


MARKS: list[str] = []


def mark(name: str) -> None:
    MARKS.append(name)


def marks() -> list[str]:
    return MARKS


def pool(size: int) -> WorkerPool:
    return WorkerPool(size, lambda: Worker(60, 2_048))


async def serve_in_order(made: WorkerPool, waiting: list[str], giving_up: int | None = None) -> list[str]:
    """Have the only worker taken, let these functions wait for it in this order, and return how they were served."""
    served: list[str] = []

    async def call(function: str) -> None:
        async with made.turn(function):
            served.append(function)

    async with made.turn("the first"):
        calls = [asyncio.create_task(call(one)) for one in waiting]
        await asyncio.sleep(0)
        if giving_up is not None:
            calls[giving_up].cancel()
            await asyncio.sleep(0)
    await asyncio.gather(*calls, return_exceptions=True)
    return served


@pytest.mark.parametrize(
    ("waiting", "served"),
    [
        ("aaab", "abaa"),
        ("aaabbbc", "abcabab"),
        ("abc", "abc"),
        ("aaaaaaaaaab", "abaaaaaaaaa"),
    ],
)
def test_functions_take_turns_however_long_the_backlog_of_one_is(waiting: str, served: str) -> None:
    assert "".join(asyncio.run(serve_in_order(pool(1), list(waiting)))) == served


@in_loop
async def test_as_many_calls_are_under_way_as_there_are_workers() -> None:
    made, under_way, most = pool(3), 0, 0

    async def call(function: str) -> None:
        nonlocal under_way, most
        async with made.turn(function):
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1

    await asyncio.gather(*(call(str(number % 4)) for number in range(20)))
    assert most == 3


@in_loop
async def test_who_gives_up_waiting_costs_nobody_a_turn() -> None:
    made, served = pool(1), []

    async def call(function: str) -> None:
        async with made.turn(function):
            served.append(function)

    async with made.turn("the first"):
        calls = [asyncio.create_task(call(one)) for one in "abc"]
        await asyncio.sleep(0)
        calls[0].cancel()
    calls[1].cancel()  # it has been given the worker, and does not know yet
    await asyncio.gather(*calls, return_exceptions=True)
    assert served == ["c"]
    async with asyncio.timeout(60), made.turn("the last"):
        pass


def test_a_call_that_gives_up_costs_its_function_no_turn() -> None:
    assert "".join(asyncio.run(serve_in_order(pool(1), list("aabbc"), giving_up=0))) == "abcb"


@pytest.mark.slow
@in_loop
async def test_a_child_that_is_new_is_warmed_for_each_function_again() -> None:
    made = pool(1)
    shares = [Share(made, name, partial(mark, name)) for name in ("evaluation", "predictions")]
    try:
        for _ in range(2):
            for one in shares * 2:
                await one.run(pid)
            assert await shares[0].run(marks) == ["evaluation", "predictions"]
            with pytest.raises(WorkerDied):
                await shares[0].run(die, signal.SIGKILL)
    finally:
        made.stop()


@pytest.mark.slow
@in_loop
async def test_calls_that_come_one_by_one_start_one_worker() -> None:
    made = pool(4)
    shares = [Share(made, name, QUIET) for name in ("evaluation", "predictions")]
    try:
        assert len({await one.run(pid) for one in shares * 2}) == 1
    finally:
        made.stop()


@pytest.mark.slow
@in_loop
async def test_a_worker_that_dies_takes_one_call_with_it() -> None:
    made = pool(2)
    evaluation, predictions = (Share(made, name, QUIET) for name in ("evaluation", "predictions"))
    try:
        going_on = asyncio.create_task(evaluation.run(sleep, 3.0))
        await asyncio.sleep(0.5)
        with pytest.raises(WorkerDied):
            await predictions.run(die, signal.SIGKILL)
        await going_on
        assert await predictions.run(pid) != os.getpid()
    finally:
        made.stop()


def cannot_import() -> None:
    raise ImportError("no such module")


@pytest.mark.slow
@in_loop
async def test_a_worker_that_cannot_be_made_ready_is_no_fault_of_the_call() -> None:
    made = pool(1)
    try:
        with pytest.raises(WorkerNotStarted, match="could not be made ready: the computation raised ImportError"):
            await Share(made, "evaluation", cannot_import).run(pid)
        assert await Share(made, "predictions", QUIET).run(pid) > 0
    finally:
        made.stop()
