"""A run of a replay: asks for what was planned, a little at a time, behind live work, and writes down what came of it.

It is written down that an entry is asked for before it is, so that a process that is killed has forgotten nothing: the
next one asks once more for what is neither there nor queued, which changes nothing that is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from layerscope.events.cloudevent import compose
from layerscope.events.log import LogUnavailable
from layerscope.functions.replay.ledger import Ledger
from layerscope.functions.replay.live_work import LiveWork
from layerscope.functions.replay.results import Result, look, why_nothing
from layerscope.functions.runtime.backlog import Queued, queued
from layerscope.functions.runtime.services import Services, publish
from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.events import (
    REPLAY_LANE,
    EventData,
    ModelUploaded,
    ProductRequested,
    ReplayFinished,
    ReplayStarted,
)
from layerscope.schemas.identity import Identity
from layerscope.schemas.replays import Ending, PlanEntry, Run
from layerscope.stores.replays import runs

SOURCE: Final = "/functions/replay"
TICK_SECONDS: Final = 1.0
LOST_SECONDS: Final = 10.0
"""After so long without an outcome it is checked whether an entry is still queued, or under way."""
ATTEMPTS: Final = 3

_log = logging.getLogger(__name__)


class RunAtWork:
    """Carries out one run, from wherever it was left."""

    def __init__(self, services: Services, run: Run, *, tick: float = TICK_SECONDS, lost: float = LOST_SECONDS) -> None:
        self.run = run
        self.ledger = Ledger(run, runs.progress(services.store, run))
        self._services = services
        self._live = LiveWork(services.log, services.tenant)
        self._tick = tick
        self._lost = lost
        self._looked_at: dict[int, float] = {}
        self._attempts: Counter[int] = Counter()
        self._again: list[int] = []
        self._sent: set[int] = set()
        self._allowed = 1.0
        self._last = time.monotonic()

    async def carry_out(self) -> Ending:
        """Work until everything has come to an end, or somebody cancels it; whatever is down is waited for."""
        if self.ledger.is_new:
            counted = Counter(one.function for one in self.run.entries if one.is_asked_for)
            started = ReplayStarted(
                replay=self.run.id, selector="missing", plan=self.run.digest, asks=dict(sorted(counted.items()))
            )
            await self._persist(started)
        while True:
            try:
                if (ending := await self._step()) is not None:
                    break
            except Unavailable as error:
                _log.warning("run %s waits: %s", self.run.id, error)
            await asyncio.sleep(self._tick)
        await asyncio.to_thread(runs.end, self._services.store, self.run, ending)
        await self._persist(
            ReplayFinished(replay=self.run.id, selector="missing", plan=self.run.digest, asked=self.ledger.asked)
        )
        _log.info("run %s %s: %d asked for", self.run.id, ending.state, self.ledger.asked)
        return ending

    async def _step(self) -> Ending | None:
        await asyncio.to_thread(self._look)
        state = "finished" if self.ledger.is_done else None
        if state is None and await asyncio.to_thread(runs.is_cancelled, self._services.store, self.run):
            state = "cancelled"
        chosen = [] if state else await asyncio.to_thread(self._choose)
        await asyncio.to_thread(self._write)
        for at in chosen:
            await self._ask(at)
        return None if state is None else Ending.model_validate({"state": state, "ended": datetime.now(UTC)})

    def _look(self) -> None:
        """See what came of what is under way, and what that brings along."""
        for at in self.ledger.under_way():
            if (result := self._result(at)) is not None:
                self.ledger.settle(at, result)
        while due := self.ledger.follow():
            for at in due:
                if (result := self._result(at)) is not None:
                    self.ledger.settle(at, result)
        self._find_lost()

    def _result(self, at: int) -> Result | None:
        entry = self.ledger[at]
        return look(self._services.store, entry, runs.place(self.run, entry))

    def _find_lost(self) -> None:
        """Ask again for what is neither there nor queued, and give it up in the end."""
        now = time.monotonic()
        late = [at for at in self.ledger.under_way() if now - self._looked_at.setdefault(at, now) >= self._lost]
        known: dict[str, Queued] = {}
        for at in late:
            entry = self.ledger[at]
            self._looked_at[at] = now
            if self._may_be_queued(entry, known):
                continue
            self._attempts[at] += 1
            if not entry.outcome and at in self._sent:
                self.ledger.finish(at)
            elif self._attempts[at] >= ATTEMPTS:
                self.ledger.give_up(at, why_nothing(self._services.store, entry))
            else:
                self._again.append(at)

    def _may_be_queued(self, entry: PlanEntry, known: dict[str, Queued]) -> bool:
        """Tell whether an entry, or what it stands on, waits for its function; while the log does not say, it may."""
        uploads = self._services.store.bucket_name(keys.MODELS)
        for name in (entry.function, *entry.stands_on):
            try:
                if name not in known:
                    known[name] = queued(self._services.log, name, self._services.tenant, uploads)
            except LogUnavailable as error:
                _log.warning("run %s: %s", self.run.id, error)
                return True
            if known[name].may_hold(entry.subject):
                return True
        return False

    def _choose(self) -> list[int]:
        """Return what to ask for now: what was lost, and more as rate, number in flight and live work allow."""
        now = time.monotonic()
        self._allowed = min(self._allowed + (now - self._last) * self.run.rate, max(1.0, self.run.rate * self._tick))
        self._last = now
        again, self._again = self._again, []
        count = min(int(self._allowed), self.run.in_flight - len(self.ledger.under_way()))
        planned = self.ledger.next(count) if count > 0 else []
        self.ledger.waits_for = ""
        if planned and (ahead := self._ahead()):
            self.ledger.waits_for, planned = f"live work: {ahead}", []
        self._allowed -= len(planned)
        return again + [at for at in planned if self._is_to_be_asked(at)]

    def _ahead(self) -> str:
        try:
            return self._live.ahead()
        except LogUnavailable as error:  # one record may be all that cannot be read; to publish may work
            _log.warning("run %s does not know what is live: %s", self.run.id, error)
            return ""

    def _is_to_be_asked(self, at: int) -> bool:
        if (result := self._result(at)) is not None:
            self.ledger.settle(at, result)
            return False
        self.ledger.ask(at)
        return True

    def _write(self) -> None:
        if (made := self.ledger.progress()) is not None:
            runs.write_progress(self._services.store, self.run, made)

    async def _ask(self, at: int) -> None:
        entry = self.ledger[at]
        data = await asyncio.to_thread(self._request, entry)
        if data is None:
            self.ledger.give_up(at, "the upload is gone")
            return
        await self._say(data, entry.subject)
        self._sent.add(at)

    def _request(self, entry: PlanEntry) -> EventData | None:
        if entry.function == "admit":
            found = self._services.store.head(keys.MODELS, entry.key)
            if found is None:
                return None
            if entry.refusal:  # which `admit` would answer with again; who is killed here leaves it missing
                runs.withdraw(self._services.store, entry)
            return ModelUploaded(bucket=keys.MODELS, key=entry.key, etag=found.etag, size=found.size, origin="missing")
        who = Identity.parse(entry.subject)
        return ProductRequested(
            dataset=who.dataset,
            model=who.model,
            version=who.version,
            product=entry.function,
            reason=f"replay {self.run.id}",
            beside=self.run.id if entry.beside else None,
        )

    async def _persist(self, data: EventData) -> None:
        """Say something about the run, however long the log is away."""
        while True:
            try:
                await self._say(data, f"replay/{self.run.id}")
                return
            except Unavailable as error:
                _log.warning("run %s waits: %s", self.run.id, error)
            await asyncio.sleep(self._tick)

    async def _say(self, data: EventData, subject: str) -> None:
        event = compose(data, source=SOURCE, subject=subject, lane=REPLAY_LANE, replayid=self.run.id)
        await publish(self._services, event)
