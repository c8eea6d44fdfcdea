"""The workers that the functions of one process share: a call has the next one that is free, and functions take turns.

    functions that wait     evaluation: 3 calls   predictions: 1   layer_vectors: 2
    who has the next free   evaluation, predictions, layer_vectors, evaluation, layer_vectors, evaluation

No product waits for all of another's backlog, however long that is: round-robin among queues, as J. Nagle has it for
gateways (RFC 970, 1985). A worker that dies takes one call with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

from layerscope.functions.runtime.worker import Worker
from layerscope.schemas.errors import WorkerNotStarted, WorkFailed

P = ParamSpec("P")
T = TypeVar("T")


class WorkerPool:
    """Some workers, of which those that have started are taken first: quiet ones do not start."""

    def __init__(self, size: int, make: Callable[[], Worker]) -> None:
        self._workers = tuple(make() for _ in range(size))
        self._free = list(self._workers)
        self._waiting: dict[str, deque[asyncio.Future[Worker]]] = {}  # whose turn is next comes first

    @property
    def confined(self) -> bool:
        """Tell whether what they compute has given up what it does not need."""
        return all(one.confined for one in self._workers)

    def stop(self) -> None:
        """End all of them, whatever they are doing."""
        for one in self._workers:
            one.stop()

    @asynccontextmanager
    async def turn(self, function: str) -> AsyncIterator[Worker]:
        """Have a worker for a call of this function, once its turn has come."""
        worker = await self._taken(function)
        try:
            yield worker
        finally:
            self._give_back(worker)

    async def _taken(self, function: str) -> Worker:
        if self._free:
            return self._free.pop()
        place: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(function, deque()).append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give_back(place.result())
            raise

    def _give_back(self, worker: Worker) -> None:
        for function in list(self._waiting):
            queue = self._waiting.pop(function)
            while queue and queue[0].done():  # they have given up, which costs their function no turn
                queue.popleft()
            if queue:
                queue.popleft().set_result(worker)
                if queue:
                    self._waiting[function] = queue  # behind all others
                return
        self._free.append(worker)


class Share:
    """What one function has of a pool: calls into its workers, of which each child is warmed by `warming` before the first."""

    def __init__(self, pool: WorkerPool, function: str, warming: Callable[[], None]) -> None:
        self._pool = pool
        self._function = function
        self._warming = warming
        self._warmed: dict[Worker, int | None] = {}

    async def warm(self) -> None:
        """Warm a worker before there is a call."""
        async with self._warm_worker():
            pass

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a worker; raises as `Worker.run` does."""
        async with self._warm_worker() as worker:
            return await worker.run(function, *args, **kwargs)

    async def attempt(
        self, attempt: AbstractContextManager[None], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do the same within a context that is entered when the turn has come."""
        async with self._warm_worker() as worker:
            return await worker.attempt(attempt, function, *args, **kwargs)

    def stop(self) -> None:
        """End the workers: the functions of a process end together."""
        self._pool.stop()

    @asynccontextmanager
    async def _warm_worker(self) -> AsyncIterator[Worker]:
        async with self._pool.turn(self._function) as worker:
            if worker.child is None or self._warmed.get(worker) != worker.child:
                try:
                    await worker.run(self._warming)
                except WorkFailed as error:  # no fault of the call
                    raise WorkerNotStarted(f"the computing process could not be made ready: {error}") from error
                self._warmed[worker] = worker.child
            yield worker
