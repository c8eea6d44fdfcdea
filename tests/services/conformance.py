"""What the scenes of the conformance run share: topics, Triggers and a data plane on one real Kafka, and what was seen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from layerscope.dataplane.filters import parse_all
from layerscope.dataplane.plane import DataPlane, SubscriptionStatus
from layerscope.dataplane.resources import DeliveryPolicy, Subscription, System
from layerscope.dataplane.subscribers import client_at
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.kafka import KafkaMessage, Record, from_record, to_record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import EventLog
from layerscope.events.topics import Topic, trigger_group
from tests.layerscope.dataplane.scripted import NAMESPACE, Call, Scripted, an_event, service

PATIENCE_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Stage:
    """The Kafka of the run, a folder, and where scenes wait for each other to have joined their groups."""

    bootstrap_servers: str
    log: KafkaLog
    folder: Path
    start: asyncio.Barrier

    async def topics(self, **partitions: int) -> None:
        """Make topics, and for each one the topic of its dead letters."""
        made = [Topic(name, count) for name, count in partitions.items()]
        letters = [Topic(f"{one.name}.dlq", 1) for one in made]
        await asyncio.to_thread(self.log.ensure_topics, [*made, *letters])

    async def together(self) -> None:
        """Wait until every scene's data plane reads, or for a while: thirty that join at once keep a machine busy."""
        with contextlib.suppress(TimeoutError, asyncio.BrokenBarrierError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.start.wait()

    async def publish(self, topic: str, *messages: CloudEvent | KafkaMessage) -> None:
        """Append events, or records as they are, one after the other."""

        def work() -> None:
            for one in messages:
                self.log.publish(topic, to_record(one) if isinstance(one, CloudEvent) else one)

        await asyncio.to_thread(work)

    async def read(self, topic: str) -> list[Record]:
        """Return everything in a topic."""
        return await asyncio.to_thread(self.log.backlog, topic, "nobody")

    async def unfinished(self, subscription: Subscription) -> list[Record]:
        """Return what a subscription's group has not committed."""
        return await asyncio.to_thread(self.log.backlog, subscription.topic, subscription.group)

    async def committed(self, subscription: Subscription, seconds: float = 20.0) -> list[Record]:
        """Wait until a group has committed everything, or for so many seconds; return what it has not."""
        deadline = time.monotonic() + seconds
        while (left := await self.unfinished(subscription)) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return left

    async def collect(
        self, plane: DataPlane, subscriptions: Sequence[Subscription], subscribers: Mapping[str, Scripted]
    ) -> Seen:
        """Return what a scene came to, all of whose subscriptions read one topic."""
        left = {one.name: await self.committed(one) for one in subscriptions}
        topic = subscriptions[0].topic
        return Seen(
            subscribers=dict(subscribers),
            records=await self.read(topic),
            letters=events_in(await self.read(f"{topic}.dlq")),
            status={one.name: one for one in await plane.status()},
            unfinished={name: [record.offset for record in records] for name, records in left.items()},
        )


@dataclass
class Seen:
    """What one scene came to."""

    subscribers: dict[str, Scripted]
    records: list[Record] = field(default_factory=list)
    letters: dict[str, list[tuple[Record, CloudEvent]]] = field(default_factory=dict)
    status: dict[str, SubscriptionStatus] = field(default_factory=dict)
    unfinished: dict[str, list[int]] = field(default_factory=dict)  # the offsets that are not committed, at the end
    seconds: dict[str, float] = field(default_factory=dict)
    offsets: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def calls(self, identifier: str) -> list[Call]:
        """Return the calls with one event, of every subscriber."""
        return [c for one in self.subscribers.values() for c in one.calls if c.header("ce-id") == identifier]

    def letter(self, identifier: str) -> CloudEvent:
        """Return the only dead letter of an event."""
        ((_, event),) = self.letters[identifier]
        return event

    def events(self) -> dict[str, list[tuple[Record, CloudEvent]]]:
        """Return the events of the scene's topic by their id."""
        return events_in(self.records)


def gaps(calls: Sequence[Call]) -> list[float]:
    """Return the seconds from each call to the next."""
    return [later.at - earlier.at for earlier, later in itertools.pairwise(calls)]


def events_in(records: Iterable[Record]) -> dict[str, list[tuple[Record, CloudEvent]]]:
    """Return the events among records by their id."""
    found: dict[str, list[tuple[Record, CloudEvent]]] = {}
    for record in records:
        with contextlib.suppress(InvalidCloudEvent):
            event = from_record(record)
            if event is not None:
                found.setdefault(event.id, []).append((record, event))
    return found


def policy(
    topic: str | None,
    retry: int = 3,
    backoff: Literal["exponential", "linear"] = "exponential",
    delay: float = 0.2,
    timeout: float = 20.0,
) -> DeliveryPolicy:
    """Return the policy under which the tables were observed, but for the timeout, and with a topic's own dead letters."""
    return DeliveryPolicy(retry, backoff, delay, timeout, None if topic is None else f"{topic}.dlq")


def trigger(
    name: str, topic: str, delivery: DeliveryPolicy, *, ordered: bool = False, filters: Iterable[object] = ()
) -> Subscription:
    """Return a Trigger for the Service of its name."""
    group = trigger_group(NAMESPACE, name)
    return Subscription(
        name, "Trigger", NAMESPACE, topic, group, "earliest", ordered, parse_all(filters), name, delivery, topic
    )


def typed(name: str, topic: str, delivery: DeliveryPolicy) -> Subscription:
    """Return a Trigger for the events whose type is its name."""
    return trigger(name, topic, delivery, filters=[{"exact": {"type": name}}])


def source(name: str, topic: str, delivery: DeliveryPolicy) -> Subscription:
    """Return an unordered KafkaSource for the Service of its name."""
    return replace(trigger(name, topic, delivery), kind="KafkaSource", group=f"source-{name}", reply_topic=None)


def event(identifier: str, kind: str = "io.layerscope.test.v1", **extensions: str) -> CloudEvent:
    """Return an event of this type."""
    return an_event(identifier, **extensions).with_attributes(type=kind)


@contextlib.asynccontextmanager
async def running(
    log: EventLog, urls: Mapping[str, str], *subscriptions: Subscription, concurrency: int = 0
) -> AsyncIterator[DataPlane]:
    """Run a data plane, from when it reads every topic on; `urls` by the name of the Service."""
    services = {name: service(name, name, concurrency=concurrency) for name in urls}
    clients = {name: client_at(url) for name, url in urls.items()}
    topics = {one.topic: 1 for one in subscriptions}
    sources = tuple(one for one in subscriptions if one.kind == "KafkaSource")
    triggers = tuple(one for one in subscriptions if one.kind == "Trigger")
    plane = DataPlane(System(topics, services, triggers, sources, ()), log, clients)
    work = asyncio.create_task(plane.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not plane.ready:
                await asyncio.sleep(0.05)
        yield plane
    finally:
        await plane.stop(10.0)
        await work
        for client in clients.values():
            await client.aclose()


@contextlib.asynccontextmanager
async def listening(**subscribers: Scripted) -> AsyncIterator[dict[str, str]]:
    """Run subscribers, and return their URLs by the names of their Services."""
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(one.listening()) for name, one in subscribers.items()}
