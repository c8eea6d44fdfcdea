"""The log on Kafka: one producer for all threads, an administrator, and for each consumer a member with its own thread.

Where a topic has several consumers, a tail reads for all of them what comes at its end. Each is made when it is first
needed and outlives a broker that goes and comes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

from layerscope.events import kafka_client
from layerscope.events.kafka import KafkaMessage, Record
from layerscope.events.kafka_client import (
    ANSWER_SECONDS,
    KafkaAdminClient,
    KafkaProducer,
    OffsetSpec,
    Shared,
    TopicPartition,
    faults,
    milliseconds,
    partitions_of,
    record,
)
from layerscope.events.kafka_connection import UNSECURED, Security, connect, make_consumer
from layerscope.events.kafka_member import Member
from layerscope.events.kafka_report import KafkaReport
from layerscope.events.kafka_tail import Tail
from layerscope.events.kafka_topics import make_topics
from layerscope.events.log import (
    BACKLOG_RECORDS,
    Consumer,
    GroupState,
    LogUnavailable,
    MessageRefused,
    Revoked,
    Start,
    check,
)
from layerscope.events.topics import TOPICS, Topic
from layerscope.events.unreadable import note

SLICE_SECONDS: Final = 0.5


class KafkaLog:
    """A log on the brokers at `bootstrap_servers` ("host:port,host:port")."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        security: Security = UNSECURED,
        replication_factor: int = -1,
    ) -> None:
        """Connect to nothing yet; `replication_factor` is for the topics it makes, -1: what the brokers are set to.

        Raises:
            RuntimeError: a package that the library needs here is missing.
        """
        kafka_client.require_packages()
        self._servers, self._security = bootstrap_servers, security
        self._replication_factor = replication_factor
        self._producer = Shared(lambda: connect(KafkaProducer, bootstrap_servers, security, **kafka_client.PRODUCER))
        self._admin = Shared(lambda: connect(KafkaAdminClient, bootstrap_servers, security, **kafka_client.ADMIN))
        self._lock = threading.Lock()
        self._members: list[Member] = []
        self._tails: dict[str, Tail] = {}
        self._closed = threading.Event()

    def publish(self, topic: str, message: KafkaMessage) -> None:
        """Append the message; if the broker dies meanwhile it may be there twice, or in spite of the error."""
        check(message)
        with self._answering(f"{topic} took no message"):
            try:
                producer = self._producer.get()
                sent = producer.send(topic, key=message.key, value=message.value, headers=list(message.headers))
                sent.get(timeout=ANSWER_SECONDS)
            except (faults.MessageSizeTooLargeError, faults.RecordListTooLargeError) as error:
                raise MessageRefused(f"{topic} takes no message of this size") from error
            except ValueError as error:  # the library's word for a topic that left its metadata, as when a broker dies
                raise LogUnavailable(f"{topic} took no message: {error}") from error

    def consumer(self, topic: str, group: str, *, start: Start, revoked: Revoked | None = None) -> Consumer:
        """Join a group on a thread of its own, which goes on trying while the brokers are away."""
        with self._lock:
            if self._closed.is_set():
                raise LogUnavailable("the log is closed")
            self._members = [one for one in self._members if one.alive]
            tail = self._tails.setdefault(topic, Tail(self._consumer, topic))
            if any(one.topic == topic for one in self._members):  # one alone fetches as soon as any tail
                tail.start()
            member = Member(self._consumer, topic, group, start, revoked, tail)
            self._members.append(member)
            return member

    def backlog(
        self, topic: str, group: str, *, start: Start = "earliest", limit: int = BACKLOG_RECORDS
    ) -> list[Record]:
        """Return what the group has yet to finish, as of now, but for what cannot be read."""
        with self._answering(f"the backlog of {group} cannot be read"):
            admin = self._admin.get()
            (described,) = admin.describe_topics([topic])
            if described["error_code"]:
                raise faults.for_code(described["error_code"])(topic)
            partitions = partitions_of(topic, (one["partition_index"] for one in described["partitions"]))
            committed = self._committed(admin, group, partitions)
            ends = _offsets(admin, partitions, OffsetSpec.LATEST)
            begins = _offsets(admin, partitions, OffsetSpec.EARLIEST)
            unread = begins if start == "earliest" else ends
            spans = {}
            for one in partitions:
                begin = max(committed[one].offset if committed[one].offset >= 0 else unread[one], begins[one])
                if begin < ends[one]:
                    spans[one] = (begin, ends[one])
            return self._read(spans, limit) if spans else []

    def groups(self, topics: Mapping[str, str]) -> dict[str, GroupState | None]:
        """Return the state of each group of `topics`, which maps it to what it reads."""
        with self._answering("its groups cannot be described"):
            return KafkaReport(self._admin.get()).groups(topics)

    def between(self, topic: str, since_ms: int, until_ms: int, *, limit: int = BACKLOG_RECORDS) -> list[Record]:
        """Return the records written in a span of time."""
        with self._answering(f"{topic} cannot be read"):
            admin = self._admin.get()
            (described,) = admin.describe_topics([topic])
            if described["error_code"]:
                raise faults.for_code(described["error_code"])(topic)
            partitions = partitions_of(topic, (one["partition_index"] for one in described["partitions"]))
            ends = _offsets(admin, partitions, OffsetSpec.LATEST)
            first, last = (_offsets(admin, partitions, moment) for moment in (since_ms, until_ms))
            spans = {one: (first[one], last[one] if last[one] >= 0 else ends[one]) for one in partitions}
            spans = {one: (begin, end) for one, (begin, end) in spans.items() if 0 <= begin < end}
            found = self._read(spans, limit) if spans else []
            return [one for one in found if since_ms <= one.timestamp_ms < until_ms]

    def ensure_topics(self, topics: Iterable[Topic] = TOPICS) -> None:
        """Make the topics that are not there, and wait until they can be used: for minutes, where brokers just start."""
        with self._answering("the topics cannot be made"):
            make_topics(self._admin.get(), topics, self._replication_factor, wait=self._closed.wait)

    def close(self) -> None:
        """Close every consumer, and the connections."""
        with self._lock:
            self._closed.set()
        readers: list[Member | Tail] = [*self._members, *self._tails.values()]
        for reader in readers:
            reader.stop()
        for reader in readers:
            reader.close()
        if (producer := self._producer.take()) is not None:
            with suppress(faults.KafkaError):
                producer.close(timeout=ANSWER_SECONDS)
        if (admin := self._admin.take()) is not None:
            admin.close()

    def _consumer(self, **settings: Any) -> Any:
        return make_consumer(self._servers, self._security, **settings)

    @contextmanager
    def _answering(self, otherwise: str) -> Iterator[None]:
        if self._closed.is_set():
            raise LogUnavailable("the log is closed")
        try:
            yield
        except faults.InvalidTimestampError as error:
            raise LogUnavailable(f"{otherwise}: the clock here differs too much from Kafka's") from error
        except (faults.KafkaError, OSError) as error:
            raise LogUnavailable(f"{otherwise}: {error}") from error

    def _committed(self, admin: Any, group: str, partitions: list[TopicPartition]) -> Any:
        """Return what a group has committed; the first who asks a new Kafka waits for those who know of groups."""
        deadline = time.monotonic() + 2 * ANSWER_SECONDS
        while True:
            try:
                return admin.list_group_offsets({group: partitions})[group]
            except faults.CoordinatorNotAvailableError:
                if time.monotonic() > deadline or self._closed.wait(SLICE_SECONDS):
                    raise

    def _read(self, spans: Mapping[TopicPartition, tuple[int, int]], limit: int) -> list[Record]:
        """Read from each partition the offsets from the first of its span to below the second; `limit` in all."""
        records: list[Record] = []
        reached, deadline = -1, 0.0
        with closing(self._consumer()) as reader:
            reader.assign(list(spans))
            for one, (begin, _) in spans.items():
                reader.seek(one, begin)
            while len(records) < limit and any(reader.position(one) < end for one, (_, end) in spans.items()):
                if (now_reached := sum(reader.position(one) for one in spans)) != reached:
                    reached, deadline = now_reached, time.monotonic() + 2 * ANSWER_SECONDS
                elif time.monotonic() > deadline:
                    raise faults.KafkaTimeoutError("its records do not come in time")
                # A poll waits in vain where a transaction left its mark and no record, and then is past it.
                for one, batch in reader.poll(timeout_ms=milliseconds(SLICE_SECONDS)).items():
                    records += _read_before(spans[one][1], batch)
        return sorted(records, key=lambda read: (read.partition, read.offset))[:limit]


def _read_before(end: int, batch: Iterable[Any]) -> Iterator[Record]:
    """Yield the records below an offset; what cannot be read is nothing that anybody waits for."""
    for found in map(record, batch):
        if found.fault is not None:
            note(found)
        elif found.offset < end:
            yield found


def _offsets(admin: Any, partitions: Iterable[TopicPartition], which: OffsetSpec | int) -> dict[TopicPartition, int]:
    # As its readers do: what a transaction has not committed is not there yet.
    found = admin.list_partition_offsets(dict.fromkeys(partitions, which), isolation_level="read_committed")
    return {partition: answer.offset for partition, answer in found.items()}
