"""Replay: asks again for what is missing (the timer's event) or was planned (a run), and records dead letters.

Repair, reprocessing and redrive are this one mechanism. What it asks travels on a lane of its own, at a bounded rate.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.replay.asks import Ask
from layerscope.functions.replay.failures import record_failure
from layerscope.functions.replay.health import Health
from layerscope.functions.replay.letters import Letters
from layerscope.functions.replay.missing import missing
from layerscope.functions.replay.rounds import Rounds
from layerscope.functions.replay.runs_at_work import RunsAtWork
from layerscope.functions.replay.unqueued import unqueued
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.dead_letters import read_dead_letter
from layerscope.functions.runtime.services import Services, publish
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import REPLAY_LANE, EventData, ReplayFinished, ReplayStarted
from layerscope.stores.outcomes.known import KnownOutcomes

PING = "dev.knative.sources.ping"
SOURCE = "/functions/replay"
ASKS_A_SECOND = 100

_log = logging.getLogger(__name__)


class Replay(EventFunction):
    """Answers the timer with a round of *missing*, and each dead letter with a recorded failure."""

    def __init__(self) -> None:
        super().__init__("replay")
        self._rounds = Rounds()
        self._round = asyncio.Lock()
        self.health = Health()
        self.runs = RunsAtWork()
        self._letters = Letters()

    def start(self, cfg: Mapping[str, str]) -> None:
        """Use the services that the environment names, and look for runs from now on."""
        super().start(cfg)
        self.runs.start(self.services)

    def ready(self) -> tuple[bool, str]:
        """Say whether events may be sent: not while the rounds of repair fail."""
        accepts, said = super().ready()
        return self.health.ready() if accepts else (accepts, said)

    def stop(self) -> None:
        """Take nothing new, and do no further rounds; whoever comes next goes on with the runs."""
        super().stop()
        self.health.stop()
        self.runs.stop()

    async def respond(self, event: CloudEvent) -> None:
        """Do one round, or record one failure; what it has to say it publishes itself, as its sources discard answers."""
        letter = read_dead_letter(event)
        if await self._letters.keep(self.services.store, event, letter):
            return
        if letter is not None:
            if not letter.is_final:
                raise Ignored(f"a dead letter of status {letter.status} is asked for again when it is missing")
            failed = await asyncio.to_thread(record_failure, self.services.store, letter)
            if failed is not None:
                await publish(self.services, compose(failed, source=SOURCE, subject=event.subject, cause=event))
        elif event.type == PING:
            await self.health.watched(self._look, self.services)
        else:
            raise Ignored(f"{event.type} is neither a timer's event nor a dead letter")

    async def _look(self) -> None:
        await self.runs.take_up(self.services)
        if self._round.locked():
            raise Ignored("a round is under way")
        async with self._round:
            asks = await asyncio.to_thread(_round, self.services, self._rounds)
            self.health.note(asks)
            await self.ask(self.runs.unplanned(asks))

    async def ask(self, asks: Sequence[Ask]) -> None:
        """Publish the requests of a plan on the replay lane, at a bounded rate."""
        if not asks:
            return
        replay = uuid.uuid4().hex
        counted = dict(sorted(Counter(one.function for one in asks).items()))
        _log.info("replay %s asks for what is missing: %s", replay, counted)
        await self._say(ReplayStarted(replay=replay, selector="missing", asks=counted), f"replay/{replay}", replay)
        for one in asks:
            await self._say(one.data, one.subject, replay)
            await asyncio.sleep(1 / ASKS_A_SECOND)
        await self._say(ReplayFinished(replay=replay, selector="missing", asked=len(asks)), f"replay/{replay}", replay)

    async def _say(self, data: EventData, subject: str, replay: str) -> None:
        event = compose(data, source=SOURCE, subject=subject, lane=REPLAY_LANE, replayid=replay)
        await publish(self.services, event)


def still_missing(services: Services, known: KnownOutcomes, *, ask_failed: bool = False) -> list[Ask]:
    """Return what is missing and, as far as that can be known, not queued for its function.

    Raises:
        Unavailable: the index or the object store does not answer.
    """
    return unqueued(services, list(missing(services.store, services.vectors, known, ask_failed=ask_failed)))


def _round(services: Services, rounds: Rounds) -> list[Ask]:
    return unqueued(services, rounds.asks(services.store, services.vectors))


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Replay()
