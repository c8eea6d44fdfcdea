"""What is asked while a turn goes on is answered by the next one, together; one that fails by itself fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from layerscope.functions.index.together import Together
from layerscope.schemas.errors import Ignored, Unavailable

Turns = list[list[int]]


class Work:
    """Doubles numbers, slowly; `turns` says which were taken together."""

    def __init__(self, *bad: int, down: bool = False) -> None:
        self.turns: Turns = []
        self.bad, self.down = bad, down

    async def __call__(self, asked: Sequence[int]) -> list[int | BaseException]:
        self.turns.append([*asked])
        await asyncio.sleep(0.01)
        if self.down:
            raise Unavailable("it does not answer")
        if set(asked) & set(self.bad):
            raise ValueError("a bug")
        return [Ignored("odd") if one % 2 else 2 * one for one in asked]


def answers(work: Work, count: int) -> list[Any]:
    async def asked() -> list[Any]:
        together: Together[int, int] = Together(work)
        calls: list[Coroutine[Any, Any, int]] = [together.ask(number) for number in range(count)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)

    return asyncio.run(asked())


def test_those_that_wait_are_answered_in_one_turn_each_with_its_own_answer() -> None:
    async def asked() -> list[Any]:
        together: Together[int, int] = Together(work)
        first = asyncio.create_task(together.ask(100))
        await asyncio.sleep(0)  # its turn begins
        await asyncio.sleep(0)
        rest = [asyncio.create_task(together.ask(number)) for number in range(6)]
        return await asyncio.wait_for(asyncio.gather(first, *rest, return_exceptions=True), 60)

    work = Work()
    found = asyncio.run(asked())
    assert work.turns == [[100], [0, 1, 2, 3, 4, 5]]
    assert [one if isinstance(one, int) else type(one) for one in found] == [200, 0, Ignored, 4, Ignored, 8, Ignored]


def test_what_nobody_foresaw_fails_only_the_one_that_it_came_of() -> None:
    work = Work(4)
    found = answers(work, 8)
    assert [type(one) for one in found] == [int, Ignored, int, Ignored, ValueError, Ignored, int, Ignored]
    assert work.turns == [[*range(8)], *([number] for number in range(8))]


def test_a_service_that_is_down_is_asked_once_for_all() -> None:
    work = Work(down=True)
    found = answers(work, 8)
    assert {type(one) for one in found} == {Unavailable}
    assert len(work.turns) == 1


def test_a_caller_who_leaves_takes_no_answer_from_the_others() -> None:
    async def asked() -> list[Any]:
        together: Together[int, int] = Together(work)
        calls = [asyncio.create_task(together.ask(number)) for number in (0, 2, 4)]
        await asyncio.sleep(0.005)
        calls[0].cancel()
        late = asyncio.create_task(together.ask(6))
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        return await asyncio.wait_for(asyncio.gather(*calls[1:], late), 60)

    work = Work()
    assert asyncio.run(asked()) == [4, 8, 12]
    assert work.turns == [[0, 2, 4], [6]]
