"""Kafka's client library as this package uses it: settings, conversions, and what it lets nobody ask.

The only module that imports the library; the others named `kafka_…` take it from here.
"""

from __future__ import annotations

import importlib
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from layerscope.events.kafka import Fault, Record

with warnings.catch_warnings():
    # The library loads its schemas by a function that Python 3.11 and 3.12 call deprecated, and 3.13 no longer does.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka import errors as faults
    from kafka.admin import OffsetSpec
    from kafka.codec import snappy_decode
    from kafka.consumer.fetcher import ConsumerRecord, Fetcher
    from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.net.compat import KafkaNetClient
    from kafka.net.inet import KafkaNetSocket
    from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
    from kafka.record.util import decode_varint
    from kafka.structs import OffsetAndMetadata

__all__ = (
    "AsyncConsumerRebalanceListener",
    "ConsumerRecord",
    "DefaultRecord",
    "DefaultRecordBatch",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaNetClient",
    "KafkaNetSocket",
    "KafkaProducer",
    "OffsetSpec",
    "PartitionRecords",
    "Shared",
    "TopicPartition",
    "Unread",
    "decode_varint",
    "faults",
    "fetch_all_but",
    "finish_rebalance",
    "milliseconds",
    "partitions_of",
    "position_of",
    "record",
    "require_packages",
    "seek",
    "snappy_decode",
    "to_commit",
    "topic_id",
)

PartitionRecords: Final = Fetcher.PartitionRecords

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 4.0
PACKAGES: Final = {"crc32c": "crc32c", "snappy": "python-snappy", "lz4.frame": "lz4", "zstandard": "zstandard"}
"""Modules that the library uses if they are there, and the packages that have them."""


def fetch_all_but(consumer: Any, held: Set[TopicPartition]) -> None:
    """Have the next polls leave these partitions out, and no others that are assigned."""
    paused = consumer.paused()
    for change, partitions in ((consumer.pause, held - paused), (consumer.resume, paused - held)):
        for one in partitions:
            with suppress(KeyError):  # it was taken away meanwhile, on the library's own thread
                change(one)


def position_of(consumer: Any, one: TopicPartition) -> int | None:
    """Return the offset that the consumer reads next, without asking the broker; None where there is none."""
    state = consumer._subscription.assignment.get(one)
    position = None if state is None else state.position
    return None if position is None else int(position.offset)


def seek(consumer: Any, one: TopicPartition, offset: int) -> None:
    """Go on with this offset, and without what the library kept of a paused partition: its log may be another now."""
    consumer._fetcher._paused_completed_fetches.pop(one, None)
    consumer._fetcher._paused_partition_records.pop(one, None)
    consumer.seek(one, offset)


def topic_id(consumer: Any, topic: str) -> UUID | None:
    """Return what tells a topic from an earlier one of its name, as last heard; None where nothing was."""
    heard: UUID | None = consumer._cluster.topic_id(topic)
    return heard if heard is not None and heard.int else None


def finish_rebalance(consumer: Any) -> None:
    """Make the next poll end a rebalance that the library would leave half done.

    A leader that joins again because the topic's metadata changed forgets that it does, when the answer comes after the
    poll that asked: it sends no heartbeats any more, refuses every commit, and its polls spin.
    """
    coordinator = consumer._coordinator
    if coordinator.rebalance_in_progress() and not coordinator.need_rejoin():
        coordinator.request_rejoin()


def milliseconds(seconds: float) -> int:
    """Return the time in the unit of the library's settings."""
    return int(1000 * seconds)


# Without idempotence, on purpose: once a batch of the library's idempotent producer has expired (a broker that is away
# for longer than the delivery timeout), that producer never sends again. Without it, it does at once; the price, a
# record that is there twice when the broker died before it answered, is one that every reader here pays anyway.
PRODUCER: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable_idempotence": False,
    "allow_auto_create_topics": False,
    "max_block_ms": milliseconds(CONNECT_SECONDS),
    "delivery_timeout_ms": milliseconds(ANSWER_SECONDS),
    "request_timeout_ms": milliseconds(ANSWER_SECONDS),
    "metrics_enabled": False,
}

# What was committed and is no longer in the topic is followed by the oldest record, whatever a group's start is:
# `events.kafka_member` writes down where a group begins. A session ends as soon as Knative's dispatcher's does.
CONSUMER: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
    "partition_assignment_strategy": (CooperativeStickyAssignor,),
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 3_000,
    "metadata_max_age_ms": 30_000,
    "fetch_max_wait_ms": 2_000,  # a record that comes ends the wait at once; thirty idle consumers should cost little
    "metrics_enabled": False,
}

# All threads share one administrator, and the library fails a sixth request instead of letting it wait.
ADMIN: Final[Mapping[str, Any]] = {
    "request_timeout_ms": milliseconds(ANSWER_SECONDS),
    "max_in_flight_requests_per_connection": 1000,
}


def require_packages() -> None:
    """Stop where the library lacks what it treats as optional.

    Without crc32c the checksums are computed in Python, a hundred times slower than the rest; without the codecs a
    record of a producer that compresses cannot be read.

    Raises:
        RuntimeError: one is missing.
    """
    for module, package in PACKAGES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise RuntimeError(f"kafka-python needs the package {package} here: pip install {package}") from error


class Shared:
    """A client for all threads, made when first needed; those who wait for one that cannot be made share its error."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Make nothing yet."""
        self._make = make
        self._lock = threading.Lock()
        self._client: Any = None
        self._failure: tuple[float, faults.KafkaError] | None = None

    def get(self) -> Any:
        """Return the client.

        Raises:
            KafkaError: no broker answers.
        """
        asked = time.monotonic()
        with self._lock:
            if self._client is None:
                if self._failure is not None and self._failure[0] > asked:
                    raise self._failure[1]
                try:
                    self._client = self._make()
                except faults.KafkaError as error:
                    self._failure = (time.monotonic(), error)
                    raise
            return self._client

    def take(self) -> Any:
        """Return the client, or None, for the caller to close."""
        with self._lock:
            client, self._client = self._client, None
            return client


class Unread(tuple[()]):
    """The headers of a record that could not be read: none, but for the reason."""

    fault: Fault

    def __new__(cls, fault: Fault) -> Unread:
        made = super().__new__(cls)
        made.fault = fault
        return made


def record(raw: Any) -> Record:
    """Return the library's record as ours."""
    if isinstance(raw.headers, Unread):
        return Record(raw.topic, raw.partition, raw.offset, None, None, (), raw.timestamp, raw.headers.fault)
    headers = tuple((name, b"" if value is None else value) for name, value in raw.headers)
    return Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, headers, raw.timestamp)


def partitions_of(topic: str, numbers: Iterable[int]) -> list[TopicPartition]:
    """Return partitions as the library names them."""
    return [TopicPartition(topic, number) for number in numbers]


def to_commit(topic: str, offsets: Mapping[int, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return offsets as the library commits them."""
    return {TopicPartition(topic, number): OffsetAndMetadata(offset, "", -1) for number, offset in offsets.items()}
