"""Equal calls that overlap in time are made once, and share the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Joins calls for the same key while the first of them is under way; nothing is kept afterwards."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns, or what an equal call that is under way will return."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(_awaited(call))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        # Shielded: one caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()
