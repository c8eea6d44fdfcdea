"""What lies between a log and the reader of one consumer: records read ahead, pauses, and offsets still to be written.

Both logs hand out their consumers over an `Inbox`, so they pause, revoke and wake alike. A pause holds records back
here and not at the broker, where a fetch that is waiting for other partitions would delay the first record after it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Set

from layerscope.events.kafka import Record
from layerscope.events.log import POLL_RECORDS, LogUnavailable, Revoked


class Inbox:
    """The reader's side: `poll`, `pause`, `resume`, `commit`; the log's side: the methods below them."""

    def __init__(self, revoked: Revoked | None = None) -> None:
        """Start with no partitions; `revoked` is called by `poll`."""
        self._revoked = revoked
        self._changed = threading.Condition()
        self._records: dict[int, deque[Record]] = {}  # of each partition read here, the longest unserved first
        self._paused: set[int] = set()
        self._unannounced: set[int] = set()  # taken away, and the reader does not know yet
        self._finished: dict[int, int] = {}
        self._closed = False
        self._failed = False

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are read here now."""
        with self._changed:
            return frozenset(self._records)

    def poll(self, timeout_seconds: float) -> list[Record]:
        """Return the next records, at most `POLL_RECORDS`; none after the timeout or when closed.

        Raises:
            LogUnavailable: the consumer failed, and is of no use any more.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            with self._changed:
                taken, self._unannounced = frozenset(self._unannounced), set()
                if self._failed:
                    raise LogUnavailable("the consumer has failed")
                if not taken:
                    records = [] if self._closed else self._next()
                    if records or self._closed or not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        return records
            if taken and self._revoked is not None:
                self._revoked(taken)

    def pause(self, partitions: Set[int]) -> None:
        """Hold back the records of these partitions, but for those that were taken away unknown to the reader.

        What the reader means is what it read before: where the partition came back meanwhile, it will never resume it.
        """
        with self._changed:
            self._paused |= (partitions & self._records.keys()) - self._unannounced

    def resume(self, partitions: Set[int]) -> None:
        """Hand out the records of these partitions again."""
        with self._changed:
            self._paused -= partitions
            self._changed.notify_all()

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note the offsets for the log to write."""
        with self._changed:
            self._finished |= {
                partition: offset
                for partition, offset in offsets.items()
                if partition in self._records and partition not in self._unannounced
            }

    def assign(self, partitions: Iterable[int]) -> None:
        """Begin to take records of these partitions."""
        with self._changed:
            for partition in partitions:
                self._records.setdefault(partition, deque())

    def withdraw(self, partitions: Iterable[int]) -> dict[int, int]:
        """Forget these partitions, tell the reader at its next poll, and return their offsets still to be written."""
        with self._changed:
            gone = self._records.keys() & set(partitions)
            for partition in gone:
                del self._records[partition]
            self._paused -= gone
            self._unannounced |= gone
            self._changed.notify_all()
            return {partition: self._finished.pop(partition) for partition in gone & self._finished.keys()}

    def put(self, records: Iterable[Record]) -> None:
        """Add records, in order, and wake the reader; those of partitions not read here are passed over."""
        with self._changed:
            for record in records:
                if record.partition in self._records:
                    self._records[record.partition].append(record)
            self._changed.notify_all()

    def holding(self, at_least: int) -> frozenset[int]:
        """Return the partitions of which so many records or more lie here unread."""
        with self._changed:
            return frozenset(partition for partition, queue in self._records.items() if len(queue) >= at_least)

    def take_finished(self) -> dict[int, int]:
        """Return the offsets still to be written; whoever takes them writes them, or gives them back."""
        with self._changed:
            finished, self._finished = self._finished, {}
            return finished

    def give_back(self, finished: Mapping[int, int]) -> None:
        """Take back offsets that could not be written, except where newer ones were noted or the partition is gone."""
        with self._changed:
            self._finished = {p: offset for p, offset in finished.items() if p in self._records} | self._finished

    def shut(self, *, failed: bool = False) -> None:
        """End every poll and hand out nothing more; `failed`: polls say so, for nobody asked for the end."""
        with self._changed:
            self._closed = True
            self._failed = self._failed or failed
            self._changed.notify_all()

    def _next(self) -> list[Record]:
        records: list[Record] = []
        for partition in [partition for partition in self._records if partition not in self._paused]:
            queue = self._records[partition]
            count = min(len(queue), POLL_RECORDS - len(records))
            if count:
                records += [queue.popleft() for _ in range(count)]
                self._records[partition] = self._records.pop(partition)
        return records
