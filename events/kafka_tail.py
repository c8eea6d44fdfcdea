"""The end of one topic on Kafka, read once for every member that has come so far.

    topic ─ Tail: one fetch ─┬─ Member of group a
                             ├─ Member of group b
                             └─ …

All who read a topic wait at its end for the same record. The library needs some milliseconds for each of them that
fetches it: where thirty do, in one process, the last has it a tenth of a second late. So a member fetches for itself
only until it stands where the tail stands; from there the tail hands it what comes, and takes no part in its group, in
its commits or in its pauses. A member that falls behind, or whose tail fails, fetches for itself again, as all do with
partitions that the topic did not have when the tail began.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from layerscope.events.kafka import Record
from layerscope.events.kafka_client import (
    ANSWER_SECONDS,
    TopicPartition,
    faults,
    milliseconds,
    partitions_of,
    position_of,
    record,
    topic_id,
)

logger = logging.getLogger(__name__)

SLICE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5
REQUEST_SECONDS: Final = 10.0  # a connection that hangs keeps everyone waiting: sooner given up than the library would


class Follower(Protocol):
    """Takes what the tail reads; both methods are called with the tail's lock held."""

    def take(self, partition: int, records: list[Record]) -> bool:
        """Take the next records of a partition, all or, where they do not fit, none."""

    def fetch_from(self, partition: int, offset: int) -> None:
        """Go on alone, with this offset."""


class Tail:
    """A consumer without a group, on a thread of its own from `start` until it is closed."""

    def __init__(self, connect: Callable[..., Any], topic: str) -> None:
        """Connect to nothing yet; `connect` makes a consumer of the library and may raise KafkaError."""
        self._connect = connect
        self._topic = topic
        self._lock = threading.Lock()
        self._next: dict[int, int] = {}  # by partition, the offset that is read next
        self._followers: dict[int, set[Follower]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kafka-tail-{topic}", daemon=True)

    def start(self) -> None:
        """Begin to read, once."""
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()

    def close(self) -> None:
        """Let every follower go on alone, and end."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def follow(self, follower: Follower, partition: int, position: Callable[[], int | None]) -> bool:
        """Hand this follower what comes, if its next record is the tail's next one too; return whether it is.

        `position` is asked while nothing is handed out and nobody leaves: it returns the follower's offset, or None
        where the partition is not its own. Only an equal offset will do: one beyond the tail's may be beyond the end.
        """
        with self._lock:
            offset = position()
            if offset is None or self._next.get(partition) != offset:
                return False
            self._followers.setdefault(partition, set()).add(follower)
            return True

    def followed_by(self, follower: Follower) -> frozenset[int]:
        """Return the partitions that this follower is handed."""
        with self._lock:
            return frozenset(partition for partition, all_of in self._followers.items() if follower in all_of)

    def leave(self, follower: Follower, partitions: Iterable[int]) -> None:
        """Hand this follower nothing more of these partitions."""
        with self._lock:
            for partition in partitions:
                self._followers.get(partition, set()).discard(follower)

    def hand_out(self, partition: int, records: list[Record], position: int) -> None:
        """Give the followers what was read, after which the tail is at `position`.

        Where a log goes back, as one does that lost its end with its disk, each follower goes back with it.
        """
        with self._lock:
            expected = self._next[partition]
            first = min(position, records[0].offset) if records else position
            if first < expected:
                self._release(partition, first)
            elif records:
                followers = self._followers.get(partition, set())
                for follower in [one for one in followers if not one.take(partition, records)]:
                    followers.discard(follower)
                    follower.fetch_from(partition, expected)
            self._next[partition] = position

    def _release(self, partition: int, offset: int) -> None:
        for follower in self._followers.pop(partition, set()):
            follower.fetch_from(partition, offset)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except (faults.KafkaError, OSError, RuntimeError) as error:
                logger.warning("the end of %s is read again: %s: %s", self._topic, type(error).__name__, error)
                self._stopping.wait(RETRY_SECONDS)

    def _read(self) -> None:
        client = self._connect(request_timeout_ms=milliseconds(REQUEST_SECONDS))
        try:
            partitions = partitions_of(self._topic, client.partitions_for_topic(self._topic))
            self._begin({one.partition: offset for one, offset in self._ends(client, partitions).items()})
            known = topic_id(client, self._topic)
            while not self._stopping.is_set():
                batches = client.poll(timeout_ms=milliseconds(SLICE_SECONDS))
                now = topic_id(client, self._topic) or known
                if known not in (now, None):
                    self._begin(dict.fromkeys(self._next, 0))
                    raise faults.UnknownTopicOrPartitionError(f"another topic has this name: {now}, not {known}")
                known = now
                for one in partitions:
                    records = [record(raw) for raw in batches.get(one, ())]
                    position = position_of(client, one)  # beyond the last record, where a transaction left its mark
                    if position is None and records:
                        position = records[-1].offset + 1
                    if position is not None:
                        self.hand_out(one.partition, records, position)
        finally:
            with self._lock:
                for partition, offset in self._next.items():
                    self._release(partition, offset)
                self._next = {}
            client.close(autocommit=False, timeout_ms=milliseconds(ANSWER_SECONDS))

    def _ends(self, client: Any, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if not partitions:
            raise faults.UnknownTopicOrPartitionError(f"there is no topic {self._topic}")
        client.assign(partitions)
        client.seek_to_end(*partitions)
        ends: dict[TopicPartition, int] = {}
        for one in partitions:
            offset = client.position(one, timeout_ms=milliseconds(ANSWER_SECONDS))
            if offset is None:
                raise faults.KafkaTimeoutError("its end is not known in time")
            ends[one] = offset
        return ends

    def _begin(self, positions: Mapping[int, int]) -> None:
        with self._lock:
            self._next = dict(positions)
