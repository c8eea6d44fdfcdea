"""Calls that come while others are at work are answered together by the next turn (group commit).

In a backlog of hundreds of models, what a turn costs whatever it writes (in Milvus Lite a flush for each collection) is
then paid once for all of them. DeWitt et al., Implementation techniques for main memory database systems, SIGMOD 1984.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from layerscope.schemas.errors import LayerscopeError

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True)
class _Call(Generic[A, R]):
    asked: A
    answer: asyncio.Future[R]


class Together(Generic[A, R]):
    """Works off what is asked in turns, one at a time; a turn takes all that wait when it begins."""

    def __init__(self, work: Callable[[Sequence[A]], Awaitable[Sequence[R | BaseException]]]) -> None:
        """Ask `work` for the answers, in their order; where an answer is an exception, that is raised to its caller.

        What it raises itself holds for all; but an error that nobody foresaw may come of one of them, so then each is
        asked alone.
        """
        self._work = work
        self._waiting: list[_Call[A, R]] = []
        self._turns: asyncio.Task[None] | None = None

    async def ask(self, asked: A) -> R:
        """Return the answer of a turn that began after this was called."""
        call: _Call[A, R] = _Call(asked, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        return await call.answer

    async def _take_turns(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            await self._answer(taken)

    async def _answer(self, taken: Sequence[_Call[A, R]]) -> None:
        turn = asyncio.ensure_future(self._work([one.asked for one in taken]))
        await asyncio.wait([turn])
        error = turn.exception()
        if error is None:
            for call, answer in zip(taken, turn.result(), strict=True):
                _tell(call, answer)
        elif len(taken) > 1 and not isinstance(error, LayerscopeError):
            for call in taken:
                await self._answer([call])
        else:
            for call in taken:
                _tell(call, error)


def _tell(call: _Call[A, R], answer: R | BaseException) -> None:
    if call.answer.done():  # the caller has gone
        return
    if isinstance(answer, BaseException):
        call.answer.set_exception(answer)
    else:
        call.answer.set_result(answer)
