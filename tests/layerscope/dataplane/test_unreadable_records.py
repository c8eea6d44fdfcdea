"""A record that cannot be decoded stops nobody: it is logged, counted, listed among the dead letters, and passed over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import crc32c
import pytest

from layerscope.dataplane.application import exposition
from layerscope.dataplane.plane import DataPlane
from layerscope.dataplane.resources import Subscription, System
from layerscope.dataplane.subscribers import client_at
from layerscope.events.cloudevent import CloudEvent, read
from layerscope.events.kafka import Fault, Record, from_record, to_record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import LogUnavailable
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import Topic
from layerscope.schemas.events import RecordUnreadable
from tests.events.kafka_server import KafkaServer, running
from tests.events.library import KafkaProducer
from tests.events.test_kafka_batches import RawName
from tests.layerscope.dataplane.scripted import (
    EVENTS,
    LETTERS,
    Scripted,
    an_event,
    contents,
    deliver,
    keyed,
    service,
    source,
    system,
    trigger,
    uncommitted,
    with_topics,
)
from tests.layerscope.dataplane.scripted import running as plane_over

REASON = "Unrecognized compression type: 5"


class SpoiltLog(MemoryLog):
    """Holds records that nobody can decode."""

    def spoil(self, partition: int) -> None:
        with self._lock:
            records = self._partitions(EVENTS)[partition]
            first = len(records)
            records.append(Record(EVENTS, partition, first, None, None, (), 0, Fault(first, REASON)))
            for group in self._groups.values():
                for member in group.members:
                    member.put(records[-1:])


@pytest.fixture
def spoilt() -> SpoiltLog:
    log = with_topics(SpoiltLog())
    log.publish(*keyed("before", 0))
    log.spoil(0)
    log.publish(*keyed("after", 0))
    return log


@pytest.mark.parametrize("subscription", [trigger(), trigger(ordered=True), source()])
def test_what_cannot_be_read_is_passed_over_and_what_follows_is_delivered(
    spoilt: SpoiltLog, subscription: Subscription
) -> None:
    subscriber = Scripted()
    plane = asyncio.run(deliver(subscriber, subscription, spoilt))
    assert sorted(subscriber.ids()) == ["after", "before"]
    assert uncommitted(spoilt, subscription) == []
    (status,) = asyncio.run(plane.status())
    assert (status.unreadable, status.delivered, status.discarded) == (1, 2, 0)
    assert (
        f'layerscope_dataplane_unreadable_total{{subscription="{subscription.name}"}} 1.0'
        in exposition([status]).decode()
    )


def test_it_is_listed_once_among_the_dead_letters_however_many_read_the_topic(spoilt: SpoiltLog) -> None:
    async def scenario() -> None:
        subscriber = Scripted()
        both = (trigger(), replace(source(), service="s"))
        async with subscriber.listening() as url, plane_over(spoilt, system(*both), url) as plane:
            async with asyncio.timeout(300):
                await plane.idle()

    asyncio.run(scenario())
    (listed,) = contents(spoilt, LETTERS)
    said = read(listed, RecordUnreadable)
    assert (said.topic, said.partition, said.first_offset, said.last_offset) == (EVENTS, 0, 1, 1)
    assert said.reason == REASON
    assert listed.subject == "partition:0#1"


def test_a_second_process_that_meets_it_says_the_same_fact_with_the_same_id(spoilt: SpoiltLog) -> None:
    asyncio.run(deliver(Scripted(), trigger(), spoilt))
    asyncio.run(deliver(Scripted(), source(), spoilt))
    assert len({one.id for one in contents(spoilt, LETTERS)}) == 1


def test_without_a_topic_for_dead_letters_it_is_still_passed_over(
    spoilt: SpoiltLog, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = Scripted()
    policy = replace(trigger().delivery, dead_letter_topic=None)
    asyncio.run(deliver(subscriber, trigger(policy), spoilt))
    assert sorted(subscriber.ids()) == ["after", "before"]


# The same on a real Kafka ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Return a Kafka whose files may be damaged."""
    with running(tmp_path_factory.mktemp("kafka")) as started:
        yield started


class OnKafka:
    """Two subscriptions to a topic of the test's own: one has its own fetches, or follows the tail, like the other."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        name = uuid.uuid4().hex[:8]
        self.topic, self.letters = f"t.{name}", f"t.{name}.dlq"
        self.log = KafkaLog(server.bootstrap_servers)
        self.log.ensure_topics([Topic(self.topic, partitions=1), Topic(self.letters, partitions=1)])
        policy = replace(trigger().delivery, dead_letter_topic=self.letters)
        self.subscriptions = [
            replace(
                trigger(policy), topic=self.topic, group=f"{name}-{one}", name=one, service="s", reply_topic=self.topic
            )
            for one in ("first", "second")
        ]
        self.subscriber = Scripted()

    def produce(self, identifier: str, codec: str | None = None, name: str = "extra") -> None:
        message = to_record(an_event(identifier))
        producer = KafkaProducer(
            bootstrap_servers=self.server.bootstrap_servers, compression_type=codec, enable_idempotence=False
        )
        with contextlib.closing(producer):
            headers = [*message.headers, (name, b"value")]
            producer.send(self.topic, key=message.key, value=message.value, headers=headers).get(timeout=30)

    def damage(self, edit: Callable[[bytearray], None]) -> int:
        """Change the last batch of the topic on the broker's disk, and return its offset."""
        (segment,) = (self.server.directory).rglob(f"{self.topic}-0/*.log")
        content = bytearray(segment.read_bytes())
        begin = last = 0
        while begin < len(content):
            last = begin
            begin += 12 + struct.unpack_from(">i", content, begin + 8)[0]
        batch = content[last:]
        edit(batch)
        with segment.open("r+b") as file:
            file.seek(last)
            file.write(batch)
        return int(struct.unpack_from(">q", batch)[0])

    def run(self, until: Callable[[], Awaitable[bool]]) -> None:
        async def scenario() -> None:
            declared = System({self.topic: 1, self.letters: 1}, {"s": service()}, tuple(self.subscriptions), (), ())
            async with self.subscriber.listening() as url:
                client = client_at(url)
                self.plane = DataPlane(declared, self.log, {"s": client})
                work = asyncio.create_task(self.plane.run())
                deadline = time.monotonic() + 120
                while not await until():
                    assert time.monotonic() < deadline, "the record holds the others up"
                    await asyncio.sleep(0.1)
                await self.plane.idle()
                await self.plane.stop(0.2)
                await work
                await client.aclose()

        asyncio.run(scenario())

    def events(self, topic: str) -> list[CloudEvent]:
        deadline = time.monotonic() + 120
        while True:  # the first who asks a new Kafka for a group waits until there is somebody to answer
            try:
                return [one for one in map(from_record, self.log.backlog(topic, "nobody")) if one is not None]
            except LogUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.5)

    def listed(self) -> list[RecordUnreadable]:
        return [read(one, RecordUnreadable) for one in self.events(self.letters)]


@pytest.fixture
def kafka_plane(server: KafkaServer) -> Iterator[OnKafka]:
    made = OnKafka(server)
    yield made
    made.log.close()


def unknown_codec(batch: bytearray) -> None:
    batch[22] |= 5
    batch[17:21] = struct.pack(">I", crc32c.crc32c(bytes(batch[21:])))


def wrong_checksum(batch: bytearray) -> None:
    batch[-5] ^= 0xFF


@pytest.mark.services
def test_a_real_record_of_every_codec_is_delivered_and_read_in_the_backlog(kafka_plane: OnKafka) -> None:
    codecs = ["gzip", "snappy", "lz4", "zstd"]
    for codec in codecs:
        kafka_plane.produce(codec, codec)
    assert [one.id for one in kafka_plane.events(kafka_plane.topic)] == codecs

    async def live() -> bool:  # what comes later comes by the tail
        if len(kafka_plane.subscriber.ids()) == 2 * len(codecs):
            for codec in codecs:
                await asyncio.to_thread(kafka_plane.produce, f"live {codec}", codec)
        return len(kafka_plane.subscriber.ids()) == 4 * len(codecs)

    kafka_plane.run(live)
    assert sorted(kafka_plane.subscriber.ids()) == sorted([*codecs, *(f"live {one}" for one in codecs)] * 2)


@pytest.mark.services
@pytest.mark.parametrize(
    ("edit", "reason", "live"),
    [
        (unknown_codec, "compression type: 5", False),
        (wrong_checksum, "crc", False),
        (None, "not UTF-8", False),
        (None, "not UTF-8", True),
    ],
)
def test_a_real_record_that_cannot_be_read_holds_nobody_up(
    kafka_plane: OnKafka,
    edit: Callable[[bytearray], None] | None,
    reason: str,
    live: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`live`: it comes while the groups read, so that the tail meets it; else they find it when they begin."""

    def spoil() -> None:
        kafka_plane.produce("lost", None, RawName("x") if edit is None else "extra")
        if edit is not None:
            kafka_plane.damage(edit)
        kafka_plane.produce("after")

    kafka_plane.produce("before")
    if not live:
        spoil()
    done: list[Any] = []

    async def until() -> bool:
        ids = kafka_plane.subscriber.ids()
        if live and not done and ids.count("before") == 2:
            done.append(await asyncio.to_thread(spoil))
        return ids.count("after") == 2

    with caplog.at_level(logging.ERROR, "layerscope"):
        kafka_plane.run(until)
    told = [one.getMessage() for one in caplog.records if "passed over" in one.getMessage()]
    assert len(told) == 1
    assert f"record 1 of {kafka_plane.topic}, partition 0" in told[0]
    (listed,) = kafka_plane.listed()
    assert (listed.topic, listed.partition, listed.first_offset, listed.last_offset) == (kafka_plane.topic, 0, 1, 1)
    assert reason in listed.reason
    assert "lost" not in kafka_plane.subscriber.ids()
    assert [one.id for one in kafka_plane.events(kafka_plane.topic)] == ["before", "after"]
    assert not any(kafka_plane.log.backlog(one.topic, one.group) for one in kafka_plane.subscriptions)
