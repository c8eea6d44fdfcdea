"""The runs that this replica carries out: what is found unfinished in the bucket, at start and whenever it looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from layerscope.functions.replay.acceptance import accept
from layerscope.functions.replay.asks import Ask
from layerscope.functions.replay.run import LOST_SECONDS, SOURCE, TICK_SECONDS, RunAtWork
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Unavailable
from layerscope.stores import dead_letters
from layerscope.stores.replays import runs

LOOK_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 3600.0

_log = logging.getLogger(__name__)


class RunsAtWork:
    """Takes up runs, each once, and carries them out side by side."""

    def __init__(self, *, tick: float = TICK_SECONDS, lost: float = LOST_SECONDS) -> None:
        self._tick, self._lost = tick, lost
        self._work: dict[str, tuple[RunAtWork, asyncio.Task[object]]] = {}
        self._turn = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    def start(self, services: Services) -> None:
        """Look for runs from now on; needs a running event loop."""
        self._watching = asyncio.get_running_loop().create_task(self.watch(services))
        self._watching.add_done_callback(_stopped)

    async def take_up(self, services: Services) -> None:
        """Begin or go on with every run that has not ended, or is to be accepted; what cannot be read keeps its own run.

        Raises:
            Unavailable: the object store does not answer.
        """
        async with self._turn:
            found = await asyncio.to_thread(runs.identifiers, services.store)
            for identifier in [one for one, has_ended in found.items() if not has_ended and one not in self._work]:
                try:
                    work = await asyncio.to_thread(self._at_work, services, identifier)
                except Unavailable as error:
                    _log.warning("run %s is not taken up yet: %s", identifier, error)
                    continue
                if work is None:
                    continue
                task: asyncio.Task[object] = asyncio.create_task(self._carry_out(services, work))
                task.add_done_callback(partial(self._ended, identifier))
                self._work[identifier] = work, task

    def _at_work(self, services: Services, identifier: str) -> RunAtWork | None:
        run = runs.run(services.store, identifier)
        return None if run is None else RunAtWork(services, run, tick=self._tick, lost=self._lost)

    async def _carry_out(self, services: Services, work: RunAtWork) -> None:
        """Bring a run to its end; where it has one, and its outcomes were accepted, put them in their places."""
        while True:
            try:
                if await asyncio.to_thread(runs.ending, services.store, work.run) is None:
                    await work.carry_out()
                elif await asyncio.to_thread(runs.is_to_be_accepted, services.store, work.run):
                    await accept(services, work.run, SOURCE)
                return
            except Unavailable as error:
                _log.warning("run %s waits: %s", work.run.id, error)
            await asyncio.sleep(self._tick)

    async def watch(self, services: Services) -> None:
        """Look for runs every few seconds, and every hour for what is kept no longer, until cancelled."""
        forgotten = float("-inf")
        clock = asyncio.get_running_loop().time
        while True:
            try:
                await self.take_up(services)
                if clock() - forgotten >= FORGET_SECONDS:
                    forgotten = clock()
                    await asyncio.to_thread(_forget, services)
            except Unavailable as error:
                _log.warning("runs are not looked for: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    def unplanned(self, asks: Sequence[Ask]) -> list[Ask]:
        """Return the requests of a round of repair that no run is going to make."""
        own = (one for work, _ in self._work.values() for one in work.ledger.open() if not one.beside)
        planned = {(one.function, one.subject) for one in own}
        return [one for one in asks if (one.function, one.subject) not in planned]

    def stop(self) -> None:
        """Let go of every run; whoever comes next goes on."""
        if self._watching is not None:
            self._watching.cancel()
        for _, task in self._work.values():
            task.cancel()

    def _ended(self, name: str, task: asyncio.Task[object]) -> None:
        self._work.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a bug, while run %s was carried out; it is taken up again", name, exc_info=error)


def _stopped(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a bug: from now on the timer alone looks for runs", exc_info=error)


def _forget(services: Services) -> None:
    now = datetime.now(UTC)
    dead_letters.forget(services.store, now)
    runs.forget(services.store, now)
