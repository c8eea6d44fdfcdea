"""One subscription's loop: poll, filter, deliver, commit.

Ordered: one event at a time per partition. Unordered: fifty more are polled while fewer than fifty are under way.
Either way the offset up to which everything is settled is committed every five seconds, when all is done, when a
partition is taken away, and at the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from events.cloudevent import CloudEvent
from events.kafka import Record
from events.log import Consumer, EventLog, LogUnavailable
from layerscope.delivery import Tally
from layerscope.filters import FilterError, matches
from layerscope.manifests import Subscription
from layerscope.progress import Progress
from layerscope.records import event_of, traceparent_of

logger = logging.getLogger(__name__)

WINDOW: Final = 50
LOW_WATER: Final = 10
RETRY_SECONDS: Final = 1.0

Deliver = Callable[[CloudEvent, str | None], Coroutine[Any, Any, None]]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a poll waits for records, and how long settled records may stay uncommitted, in seconds."""

    poll: float = 0.5
    commit: float = 5.0


@dataclass(slots=True, eq=False)
class _Partition:
    progress: Progress = field(default_factory=Progress)
    waiting: deque[tuple[int, CloudEvent, str | None]] = field(default_factory=deque)
    busy: bool = False


class Dispatcher:
    """Runs one subscription; everything but `run`'s own thread for the consumer happens in the event loop."""

    def __init__(
        self, subscription: Subscription, log: EventLog, deliver: Deliver, tally: Tally, pace: Pace | None = None
    ) -> None:
        self.subscription = subscription
        self.joined = asyncio.Event()
        self._log = log
        self._deliver = deliver
        self._tally = tally
        self._pace = pace or Pace()
        self._partitions: dict[int, _Partition] = {}
        self._paused: set[int] = set()
        self._underway: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stopping = False
        self._grace = 0.0
        self._committed_at = 0.0

    @property
    def in_flight(self) -> int:
        """Return how many events are being delivered, those that wait for a retry included."""
        return len(self._underway)

    @property
    def unsettled(self) -> int:
        """Return how many received records are not settled."""
        return sum(partition.progress.open for partition in self._partitions.values())

    @property
    def idle(self) -> bool:
        """Return whether everything that was received is settled and committed."""
        return not self._underway and not self.unsettled and not self._commitable()

    def stop(self, grace_seconds: float) -> None:
        """Begin no more deliveries; `run` ends when those under way did, or after `grace_seconds` without them."""
        self._grace = grace_seconds
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Deliver until stopped."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"consumer-{self.subscription.name}")
        in_thread = partial(_in_thread, asyncio.get_running_loop(), thread)
        consumer: Consumer | None = None
        try:
            while consumer is None and not self._stopping:
                consumer = await self._join(in_thread)
            if consumer is None:
                return
            self.joined.set()
            async with asyncio.TaskGroup() as deliveries:
                self._begin = deliveries.create_task
                while not self._stopping:
                    await self._turn(consumer, in_thread)
                await self._drain()
            await self._commit(consumer, in_thread)
        finally:
            if consumer is not None:
                thread.submit(consumer.close)
            thread.shutdown(wait=False)
