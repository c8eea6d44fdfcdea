"""One subscription's loop: poll, filter, deliver, commit.

Ordered: one event at a time per partition. Unordered: fifty more are polled while fewer than fifty are under way, as
Knative does. Whatever the order in which events end, only the offset is committed before which all of them did.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from layerscope.dataplane.delivery import Tally
from layerscope.dataplane.filters import FilterError
from layerscope.dataplane.offered_events import event_of, traceparent_of
from layerscope.dataplane.progress import Progress
from layerscope.dataplane.resources import Subscription
from layerscope.events.cloudevent import CloudEvent
from layerscope.events.kafka import Record, type_of
from layerscope.events.log import Consumer, EventLog, LogUnavailable

logger = logging.getLogger(__name__)

WINDOW: Final = 50
LOW_WATER: Final = 10
RETRY_SECONDS: Final = 1.0
POLL_SECONDS: Final = 30.0  # nothing waits for a poll to end: new records, a resumed partition and closing wake it

Deliver = Callable[[CloudEvent, str | None], Coroutine[Any, Any, None]]
PassOver = Callable[[Record, Subscription], Coroutine[Any, Any, None]]


@dataclass(slots=True, eq=False)
class _Partition:
    number: int
    progress: Progress = field(default_factory=Progress)
    waiting: deque[tuple[Record, CloudEvent]] = field(default_factory=deque)
    busy: bool = False


class Dispatcher:
    """Runs one subscription; only polling and closing happen outside the event loop."""

    def __init__(
        self, subscription: Subscription, log: EventLog, deliver: Deliver, pass_over: PassOver, tally: Tally
    ) -> None:
        """Prepare; `deliver` brings one event to its end, whichever that is, `pass_over` a record that has none."""
        self.subscription = subscription
        self._types = subscription.filter.types
        self._log = log
        self._deliver = deliver
        self._pass_over = pass_over
        self._tally = tally
        self._consumer: Consumer | None = None
        self._partitions: dict[int, _Partition] = {}
        self._held: set[int] = set()  # partitions that are paused
        self._underway: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._grace_seconds = 0.0

    @property
    def joined(self) -> bool:
        """Return whether this subscription reads any partition."""
        return self._consumer is not None and bool(self._consumer.partitions)

    @property
    def in_flight(self) -> int:
        """Return how many events are being delivered, those that wait for a retry included."""
        return len(self._underway)

    @property
    def unsettled(self) -> int:
        """Return how many records were received and are not settled, those in flight included."""
        return sum(partition.progress.open for partition in self._partitions.values())

    def stop(self, grace_seconds: float) -> None:
        """Begin no more deliveries; `run` ends when those under way did, or gives them up after `grace_seconds`."""
        self._grace_seconds = grace_seconds
        self._stopping.set()

    async def run(self) -> None:
        """Deliver until stopped; what was begun and not ended is delivered again by whoever reads next."""
        threads = ThreadPoolExecutor(2, thread_name_prefix=f"consumer-{self.subscription.name}")  # to poll, to close
        try:
            async with asyncio.TaskGroup() as deliveries:
                while not self._stopping.is_set():
                    try:
                        self._consumer = self._join()
                        await self._read(self._consumer, threads, deliveries)
                    except LogUnavailable as error:
                        logger.error("%s joins its group again: %s", self.subscription.name, error)
                        await self._leave(threads)
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._stopping.wait(), RETRY_SECONDS)
                await self._drain()
        finally:
            await asyncio.shield(self._leave(threads))
            threads.shutdown()

    def _join(self) -> Consumer:
        loop = asyncio.get_running_loop()

        def revoked(partitions: frozenset[int]) -> None:
            loop.call_soon_threadsafe(self._forget, partitions)

        topic, group, start = self.subscription.topic, self.subscription.group, self.subscription.start
        return self._log.consumer(topic, group, start=start, revoked=revoked)

    async def _read(self, consumer: Consumer, threads: ThreadPoolExecutor, deliveries: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                polled = loop.run_in_executor(threads, consumer.poll, POLL_SECONDS)
                await asyncio.wait((polled, stopped), return_when=asyncio.FIRST_COMPLETED)
                if not self._stopping.is_set():
                    for record in await polled:
                        self._take(record, deliveries)
                    self._hold_back(consumer)
        finally:
            stopped.cancel()

    async def _leave(self, threads: ThreadPoolExecutor) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await asyncio.get_running_loop().run_in_executor(threads, consumer.close)
        self._forget(frozenset(self._partitions))

    def _take(self, record: Record, deliveries: asyncio.TaskGroup) -> None:
        partition = self._partitions.setdefault(record.partition, _Partition(record.partition))
        partition.progress.receive(record.offset)
        if record.fault is not None:
            self._begin(self._pass_over_one(partition, record), deliveries)
            return
        event = self._wanted(record)
        if event is None:
            self._settle(partition, record)
        elif not self.subscription.ordered:
            self._begin(self._deliver_one(partition, record, event), deliveries)
        else:
            partition.waiting.append((record, event))
            if not partition.busy:
                partition.busy = True
                self._begin(self._deliver_in_order(partition), deliveries)

    def _wanted(self, record: Record) -> CloudEvent | None:
        # Most subscriptions want few of the events in their topic, and to read one takes longer than to deliver it.
        if self._types is not None and (kind := type_of(record)) is not None and kind not in self._types:
            return None
        event = event_of(record, self.subscription)
        if event is None:
            reason = "it is not an event"
        else:
            try:
                return event if self.subscription.filter.matches(event.attributes()) else None
            except FilterError as error:
                reason = str(error)
        self._tally.discarded += 1
        where = f"{record.topic}/{record.partition}@{record.offset}"
        logger.warning("%s: the record %s is discarded: %s", self.subscription.name, where, reason)
        return None

    def _begin(self, delivery: Coroutine[Any, Any, None], deliveries: asyncio.TaskGroup) -> None:
        task = deliveries.create_task(delivery)
        self._underway.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._underway.discard(task)
        if not self.subscription.ordered and self.in_flight < WINDOW:
            self._resume(set(self._held))

    async def _deliver_in_order(self, partition: _Partition) -> None:
        while partition.waiting and not self._stopping.is_set():
            record, event = partition.waiting.popleft()
            if len(partition.waiting) == LOW_WATER:
                self._resume({partition.number})
            await self._deliver_one(partition, record, event)
        partition.busy = False

    async def _deliver_one(self, partition: _Partition, record: Record, event: CloudEvent) -> None:
        await self._deliver(event, traceparent_of(record))
        self._settle(partition, record)

    async def _pass_over_one(self, partition: _Partition, record: Record) -> None:
        self._tally.unreadable += 1
        await self._pass_over(record, self.subscription)
        self._settle(partition, record)

    def _settle(self, partition: _Partition, record: Record) -> None:
        reached = partition.progress.settle(record.offset)
        # What a partition's earlier reader ends after the partition was taken away is no longer ours to commit.
        ours = self._partitions.get(partition.number) is partition
        if reached is not None and ours and self._consumer is not None:
            self._consumer.commit({partition.number: reached})

    def _hold_back(self, consumer: Consumer) -> None:
        if self.subscription.ordered:
            full = {number for number, partition in self._partitions.items() if len(partition.waiting) >= WINDOW}
        else:
            full = set(consumer.partitions) if self.in_flight >= WINDOW else set()
        if full - self._held:
            consumer.pause(full)
            self._held |= full

    def _resume(self, partitions: set[int]) -> None:
        freed = partitions & self._held
        if self._consumer is not None and freed:
            self._held -= freed
            self._consumer.resume(freed)

    def _forget(self, partitions: frozenset[int]) -> None:
        self._held -= partitions
        for number in partitions:
            gone = self._partitions.pop(number, None)
            if gone is not None:
                gone.waiting.clear()

    async def _drain(self) -> None:
        if self._underway:
            await asyncio.wait(self._underway, timeout=self._grace_seconds)
        for task in tuple(self._underway):
            task.cancel()
