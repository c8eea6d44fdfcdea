"""The local data plane: every Trigger, KafkaSource and PingSource of `knative/`, run on this machine.

    log ─ dispatch: poll, filter, order, commit ─ delivery: attempts, reply, dead letter ─ subscriber ─ function
                                                      └─ log

The same over Kafka and processes (`python -m layerscope.dataplane`) and over memory and one process (embedded). It
behaves like Knative's own, but for what the modules named above say; and it drains when it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Final

import httpx

from layerscope.dataplane.delivery import Delivery, OfferedAgain, Tally
from layerscope.dataplane.dispatch import Dispatcher
from layerscope.dataplane.pings import Pinger
from layerscope.dataplane.resources import Subscription, System
from layerscope.dataplane.subscribers import Subscribers
from layerscope.dataplane.unreadable_records import UnreadableRecords
from layerscope.events.cloudevent import CloudEvent
from layerscope.events.kafka import to_record
from layerscope.events.log import EventLog, LogUnavailable

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 25.0
PUBLISHERS: Final = 8
RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """Where a subscription stands: `lag` records are not finished, of which `in_flight` are being delivered.

    `offered_again` are those of them that were not taken, and wait for their next attempt.
    """

    name: str
    topic: str
    service: str
    lag: int | None
    in_flight: int
    attempts: int
    delivered: int
    replies: int
    dead_letters: int
    lost: int
    discarded: int
    unreadable: int
    offered_again: tuple[OfferedAgain, ...] = ()


class DataPlane:
    """Delivers what the log holds to the Services that `clients` reach, by the name of the Service."""

    def __init__(self, system: System, log: EventLog, clients: Mapping[str, httpx.AsyncClient]) -> None:
        """Prepare; nothing is read before `run`.

        Raises:
            ValueError: a Service that a subscription names cannot be called, or a client's Service is not declared.
        """
        called = Subscribers(system.services, clients)
        self._log = log
        self._tallies = {subscription.name: Tally() for subscription in system.subscriptions}
        unreadable = UnreadableRecords(self._publish)
        self._deliveries = {
            s.name: Delivery(s, called.at(s.service, s.path), self._publish, self._pause, self._tallies[s.name])
            for s in system.subscriptions
        }
        self._dispatchers = tuple(
            Dispatcher(s, log, self._deliveries[s.name].deliver, unreadable.pass_over, self._tallies[s.name])
            for s in system.subscriptions
        )
        self._pingers = tuple(Pinger(ping, called.at(ping.service, ping.path)) for ping in system.pings)
        self._threads = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="log")
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    async def run(self) -> None:
        """Deliver until stopped; ends with an ExceptionGroup if this code has a bug, never because of an event."""
        self._ended.clear()
        try:
            async with asyncio.TaskGroup() as timers:
                pings = [timers.create_task(pinger.run()) for pinger in self._pingers]
                async with asyncio.TaskGroup() as loops:
                    for dispatcher in self._dispatchers:
                        loops.create_task(dispatcher.run())
                    await self._stopping.wait()
                for ping in pings:
                    ping.cancel()
        finally:
            self._threads.shutdown(wait=False)
            self._ended.set()

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Begin and repeat nothing more, let the calls under way end, for `grace_seconds` at most, and commit."""
        self._stopping.set()
        for dispatcher in self._dispatchers:
            dispatcher.stop(grace_seconds)
        await self._ended.wait()

    @property
    def ready(self) -> bool:
        """Return whether every subscription reads its topic."""
        return all(dispatcher.joined for dispatcher in self._dispatchers)

    async def idle(self) -> bool:
        """Return, True, once nothing is queued or in flight anywhere: all that was published before is settled."""
        while True:
            before = self._activity()
            with contextlib.suppress(LogUnavailable):
                if before is not None and not any(await self._lags()) and self._activity() == before:
                    return True
            await asyncio.sleep(QUIET_SECONDS)

    async def status(self) -> list[SubscriptionStatus]:
        """Return where every subscription stands; `lag` is None while the log does not answer."""
        try:
            lags: list[int | None] = [*await self._lags()]
        except LogUnavailable:
            lags = [None] * len(self._dispatchers)
        return [self._status(dispatcher, lag) for dispatcher, lag in zip(self._dispatchers, lags, strict=True)]

    def _status(self, dispatcher: Dispatcher, lag: int | None) -> SubscriptionStatus:
        subscription, tally = dispatcher.subscription, self._tallies[dispatcher.subscription.name]
        return SubscriptionStatus(
            subscription.name,
            subscription.topic,
            subscription.service,
            lag,
            dispatcher.in_flight,
            **asdict(tally),
            offered_again=tuple(self._deliveries[subscription.name].offered_again.values()),
        )

    def _activity(self) -> tuple[int, list[Tally]] | None:
        """Return a mark that changes with every delivery and ping, None while one is under way."""
        busy = any(d.in_flight or d.unsettled for d in self._dispatchers) or any(p.in_flight for p in self._pingers)
        return None if busy else (sum(p.taken for p in self._pingers), [replace(t) for t in self._tallies.values()])

    async def _lags(self) -> list[int]:
        return await asyncio.to_thread(lambda: [self._lag(d.subscription) for d in self._dispatchers])

    def _lag(self, subscription: Subscription) -> int:
        return len(self._log.backlog(subscription.topic, subscription.group, start=subscription.start))

    async def _publish(self, topic: str, event: CloudEvent) -> None:
        """Store an event, however long the log is away: to go on without it would be to lose it.

        Raises:
            MessageRefused: no log will ever take it.
        """
        message = to_record(event)
        pause = RETRY_SECONDS
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._log.publish, topic, message)
                return
            except LogUnavailable as error:
                logger.warning("event %s is kept until %s takes it: %s", event.id, topic, error)
            await self._pause(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait before something is tried again.

        Raises:
            CancelledError: the data plane stops; the event is not settled, so it is delivered at the next start.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
            raise asyncio.CancelledError
