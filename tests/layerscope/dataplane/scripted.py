"""A subscriber that answers as told, over a real connection, and the smallest system that delivers to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from layerscope.dataplane.filters import All
from layerscope.dataplane.plane import DataPlane
from layerscope.dataplane.resources import DeliveryPolicy, Ping, Service, Subscription, System
from layerscope.dataplane.subscribers import client_at
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.http import from_request, to_binary
from layerscope.events.kafka import KafkaMessage, Record, from_record, to_record
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import Topic

EVENTS: Final = "t.events"
LETTERS: Final = "t.dlq"
NAMESPACE: Final = "demo"

POLICY: Final = DeliveryPolicy(
    retry=3, backoff="exponential", delay_seconds=0.01, timeout_seconds=2.0, dead_letter_topic=LETTERS
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: after `seconds`, or never when `status` is 0, where the connection is reset."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seconds: float = 0.0


RESET: Final = Reply(status=0)


@dataclass(slots=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    at: float
    under_way: int
    version: str = ""

    @property
    def event(self) -> CloudEvent:
        return from_request(self.headers, self.body)

    def header(self, name: str) -> str | None:
        found = [value.decode() for key, value in self.headers if key.decode().lower() == name]
        return found[0] if found else None


@dataclass(slots=True)
class Scripted:
    """Answers each event by its own script, by its id, or by `script`; the last answer of a script repeats.

    With `permits`, each answer takes one.
    """

    script: Sequence[Reply] = (Reply(),)
    by_id: dict[str, Sequence[Reply]] = field(default_factory=dict)
    permits: asyncio.Semaphore | None = None
    calls: list[Call] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    finished: list[str] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    connections_made: int = 0
    connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    def ids(self) -> list[str]:
        return [call.event.id for call in self.calls]

    def gaps(self) -> list[float]:
        return [later.at - earlier.at for earlier, later in zip(self.calls, self.calls[1:], strict=False)]

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self.connections.values():
                task.cancel()
            await asyncio.gather(*self.connections.values(), return_exceptions=True)
            self.connections.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_made += 1
        self.connections[writer] = asyncio.ensure_future(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        method, path, version = head[0].decode().split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in head[1:] if line)]
        length = next((int(value) for name, value in headers if name.lower() == b"content-length"), 0)
        call = Call(
            method, path, headers, await reader.readexactly(length), time.monotonic(), self.under_way + 1, version
        )
        reply = self._reply(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(reply.seconds)
        if self.permits is not None:
            await self.permits.acquire()
        self.under_way -= 1
        if reply.status == 0:
            writer.transport.abort()
            return False
        self.finished.append(call.header("ce-id") or "")
        lines = [f"HTTP/1.1 {reply.status} -", *(f"{name}: {value}" for name, value in reply.headers)]
        if reply.status not in (204, 304):
            lines.append(f"content-length: {len(reply.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + (reply.body if reply.status not in (204, 304) else b""))
        await writer.drain()
        return True

    def _reply(self, call: Call) -> Reply:
        identifier = call.header("ce-id") or ""
        before = self.asked[identifier]
        self.asked[identifier] += 1
        self.calls.append(call)
        script = self.by_id.get(identifier, self.script)
        return script[min(before, len(script) - 1)]


def service(name: str = "s", *functions: str, concurrency: int = 0) -> Service:
    return Service(name, NAMESPACE, functions or ("f",), concurrency, 60.0, None, 0, None, 0)


def trigger(policy: DeliveryPolicy = POLICY, *, ordered: bool = False, name: str = "s") -> Subscription:
    group = f"knative-trigger-{NAMESPACE}-{name}"
    return Subscription(name, "Trigger", NAMESPACE, EVENTS, group, "earliest", ordered, All(()), name, policy, EVENTS)


def source(policy: DeliveryPolicy = POLICY) -> Subscription:
    subscription = trigger(policy)
    return replace(subscription, name="minio", kind="KafkaSource", group="minio", reply_topic=None)


def system(*subscriptions: Subscription, pings: tuple[Ping, ...] = ()) -> System:
    return System({EVENTS: 2, LETTERS: 1}, {"s": service()}, subscriptions, (), pings)


LogT = TypeVar("LogT", bound=MemoryLog)


def with_topics(log: LogT) -> LogT:
    log.ensure_topics([Topic(EVENTS, partitions=2), Topic(LETTERS, partitions=1)])
    return log


def new_log() -> MemoryLog:
    return with_topics(MemoryLog())


def an_event(identifier: str = "1", **extensions: str) -> CloudEvent:
    return CloudEvent(
        {
            "id": identifier,
            "source": "/tests",
            "type": "io.layerscope.test.v1",
            "subject": "d/m/1",
            "datacontenttype": "application/json",
            "partitionkey": "d/m",
            **extensions,
        },
        b'{"a":1}',
    )


def publish(log: MemoryLog, *events: CloudEvent) -> None:
    for event in events:
        log.publish(EVENTS, to_record(event))


def contents(log: MemoryLog, topic: str) -> list[CloudEvent]:
    found = []
    for record in log.backlog(topic, "nobody"):
        with contextlib.suppress(InvalidCloudEvent):
            event = from_record(record)
            found += [event] if event is not None else []
    return found


def uncommitted(log: MemoryLog, subscription: Subscription) -> list[Record]:
    return log.backlog(subscription.topic, subscription.group)


@contextlib.asynccontextmanager
async def running(log: MemoryLog, declared: System, *urls: str) -> AsyncIterator[DataPlane]:
    """Run a data plane over one URL, or one for each Service in the order of their declaration."""
    clients = {name: client_at(url) for name, url in zip(declared.services, urls, strict=False)}
    plane = DataPlane(declared, log, clients)
    work = asyncio.create_task(plane.run())
    await asyncio.sleep(0)
    try:
        yield plane
    finally:
        await plane.stop(0.2)
        await work
        for client in clients.values():
            await client.aclose()


async def deliver(subscriber: Scripted, subscription: Subscription, log: MemoryLog) -> DataPlane:
    """Deliver everything in the log, and return once it is settled."""
    async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
        async with asyncio.timeout(300):
            await plane.idle()
        return plane


async def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def keyed(identifier: str, partition: int) -> tuple[str, KafkaMessage]:
    """Return where an event goes, and its message, for one of the two partitions."""
    return EVENTS, to_record(an_event(identifier, partitionkey=KEYS[partition]))


def keys_of_partitions() -> dict[int, str]:
    log = new_log()
    for number in range(20):
        log.publish(EVENTS, KafkaMessage(str(number).encode(), b"x"))
    return {record.partition: (record.key or b"").decode() for record in log.backlog(EVENTS, "nobody")}


KEYS = keys_of_partitions()


DESTINATION = "http://s.demo.svc.cluster.local/"


ANSWER = an_event("answer").with_attributes(type="io.layerscope.answer.v1")


BINARY = tuple(to_binary(ANSWER)[0].items())


HEADERS_ONLY = tuple((name, value) for name, value in BINARY if name.startswith("ce-"))


TEXT = (("content-type", "text/plain"),)
