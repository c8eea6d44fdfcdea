"""How the rounds of repair fare: what readiness follows, metrics count, and `why` and `status` read in the bucket.

Readiness follows what rounds came to, and not how long ago that was: where it decides who is sent events, as on Knative,
one that waits for the timer would keep the timer away, and dead letters with it. Of rounds that hang, or that nobody
starts, `status` tells by the time at which the next one is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from prometheus_client import Gauge

from layerscope.functions.replay.asks import Ask
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored, Unavailable
from layerscope.schemas.events import ModelUploaded
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.health import RepairHealth
from layerscope.stores import damage
from layerscope.stores.object_store import Object, ObjectStore

FAILED_IN_A_ROW: Final = 3
RETRY_SECONDS: Final = 30.0
OVERDUE: Final = timedelta(minutes=10)
"""After so long without the end of a round repair has stopped: ten periods of the timer."""
FIRST: Final = timedelta(hours=1)
"""So long the first round of a process may take, which lists all that there is."""
A_REQUEST: Final = timedelta(milliseconds=20)
"""Twice what a round allows itself for each request that it publishes."""
HEADS: Final = 100
"""Of the uploads that a round asks to be read, those of which the age is looked up."""

_log = logging.getLogger(__name__)
_last_good = Gauge("layerscope_replay_last_good_round_timestamp_seconds", "When a round of repair last ended well")
_failed = Gauge("layerscope_replay_failed_rounds", "Rounds of repair that failed since one ended well")
_missing = Gauge("layerscope_replay_missing", "What the last good round found missing and asked for", ["function"])
_oldest = Gauge(
    "layerscope_replay_oldest_unserved_timestamp_seconds",
    "When the oldest upload was put that the last good round asked to be read; 0: none",
)


class Health:
    """Follows the rounds. While the last ones failed, it has further ones done by itself.

    For where readiness decides who is sent events, as on Knative, the timer's no longer come then.
    """

    def __init__(self) -> None:
        self.said = RepairHealth()
        self.retry_seconds = RETRY_SECONDS
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._asked: list[Ask] = []
        self._store: ObjectStore | None = None
        self._telling: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None

    def ready(self) -> tuple[bool, str]:
        """Say whether repair works: not once its last rounds failed, one after the other."""
        if self.said.failed_rounds < FAILED_IN_A_ROW:
            return True, "ready"
        return False, f"the last {self.said.failed_rounds} rounds of repair failed: {self.said.reason}"

    def note(self, asks: Iterable[Ask]) -> None:
        """Note what the present round asks for; where that is much, the round is due later."""
        self._asked = list(asks)
        takes = len(self._asked) * A_REQUEST
        if self._store is not None and takes > OVERDUE / 2:
            self._telling = asyncio.get_running_loop().create_task(
                asyncio.to_thread(self._expect, OVERDUE + takes, self._store)
            )

    async def watched(self, look: Callable[[], Awaitable[None]], services: Services) -> None:
        """Do a round, and note how it ended; what it raises is raised."""
        if self._store is None:
            self._store = services.store
            await asyncio.to_thread(self._expect, FIRST, services.store)
        try:
            await look()
        except Ignored:
            raise
        except Exception as error:
            await self._told()
            said = self.said.model_copy(
                update={
                    "failed_rounds": self.said.failed_rounds + 1,
                    "reason": f"{type(error).__name__}: {error}"[:500],
                    "due": self.clock() + OVERDUE,
                }
            )
            await asyncio.to_thread(self._tell, said, services.store)
            self._recover(look, services)
            raise
        await self._told()
        await asyncio.to_thread(self._end_well, services.store)

    def stop(self) -> None:
        """Do no further rounds."""
        if self._recovering is not None:
            self._recovering.cancel()

    async def _told(self) -> None:
        """Wait until what was said of the present round is written, so that how it ended is written after it."""
        if self._telling is not None:
            await self._telling
            self._telling = None

    def _expect(self, within: timedelta, store: ObjectStore) -> None:
        """Write by when the present round ends, next to what is written of those before it, also by another process."""
        due = self.clock() + within
        try:
            written = damage.read_json(store, keys.PRODUCTS, keys.REPAIR_HEALTH, RepairHealth) or self.said
            told = written.model_copy(update={"due": due})
            store.put(keys.PRODUCTS, keys.REPAIR_HEALTH, told.to_bytes(), media_type=DATA_TYPE)
        except Unavailable as error:
            _log.warning("when this round of repair is due is not in the bucket: %s", error)
            return
        # The failures of an earlier process do not make this one unready.
        self.said = self.said.model_copy(update={"due": due, "last_good": written.last_good})

    def _end_well(self, store: ObjectStore) -> None:
        counted = Counter(one.function for one in self._asked)
        oldest = _oldest_of(store, self._asked)
        for function in self.said.missing.keys() - counted.keys():
            _missing.labels(function).set(0)
        for function, count in counted.items():
            _missing.labels(function).set(count)
        now = self.clock()
        said = RepairHealth(
            last_good=now,
            due=now + OVERDUE,
            missing=dict(sorted(counted.items())),
            oldest_unserved=oldest.modified if oldest else None,
            oldest_key=oldest.key if oldest else None,
        )
        _oldest.set(oldest.modified.timestamp() if oldest else 0)
        self._tell(said, store)

    def _tell(self, said: RepairHealth, store: ObjectStore) -> None:
        self.said = said
        _failed.set(said.failed_rounds)
        if said.last_good is not None:
            _last_good.set(said.last_good.timestamp())
        try:
            store.put(keys.PRODUCTS, keys.REPAIR_HEALTH, said.to_bytes(), media_type=DATA_TYPE)
        except Unavailable as error:
            _log.warning("how repair fares is not in the bucket: %s", error)

    def _recover(self, look: Callable[[], Awaitable[None]], services: Services) -> None:
        if not self.ready()[0] and (self._recovering is None or self._recovering.done()):
            self._recovering = asyncio.get_running_loop().create_task(self._until_well(look, services))

    async def _until_well(self, look: Callable[[], Awaitable[None]], services: Services) -> None:
        while not self.ready()[0]:
            await asyncio.sleep(self.retry_seconds)
            if not self.ready()[0]:
                round_ = asyncio.ensure_future(self.watched(look, services))
                await asyncio.wait((round_,))
                if (error := round_.exception()) is not None:
                    _log.warning("a round of repair failed again: %s", error)


def _oldest_of(store: ObjectStore, asks: Iterable[Ask]) -> Object | None:
    """Return the oldest of the uploads that are asked to be read."""
    uploads = (one.data.key for one in asks if isinstance(one.data, ModelUploaded))
    found: list[Object] = []
    with contextlib.suppress(Unavailable):
        found = [one for key in islice(uploads, HEADS) if (one := store.head(keys.MODELS, key)) is not None]
    return min(found, key=lambda one: one.modified, default=None)
