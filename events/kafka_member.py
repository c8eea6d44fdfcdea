"""One member of a consumer group on Kafka: a thread that reads ahead into an inbox and commits from it.

What the topic's tail hands over (`events.kafka_tail`) it need not fetch; then its thread only keeps it in its group.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from layerscope.events.inbox import Inbox
from layerscope.events.kafka import Record
from layerscope.events.kafka_client import (
    ANSWER_SECONDS,
    AsyncConsumerRebalanceListener,
    TopicPartition,
    faults,
    fetch_all_but,
    finish_rebalance,
    milliseconds,
    partitions_of,
    position_of,
    record,
    seek,
    to_commit,
)
from layerscope.events.kafka_tail import Tail
from layerscope.events.log import Revoked, Start

logger = logging.getLogger(__name__)

SLICE_SECONDS: Final = 0.5  # how long the thread waits for records before it looks what there is to commit
# From one commit to the next: each is a call, and every reader of a topic wakes at a record. With the slice that an end
# may wait for, what was finished is written within 0.75 s.
COMMIT_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 0.5
READ_AHEAD: Final = 200


class Member(Inbox):
    """A consumer; only its thread uses the library's, which is not made for several."""

    def __init__(
        self, connect: Callable[..., Any], topic: str, group: str, start: Start, revoked: Revoked | None, tail: Tail
    ) -> None:
        """Begin to join; `connect` makes a consumer of the library and may raise KafkaError."""
        super().__init__(revoked)
        self._connect = connect
        self._tail = tail
        self._alone_from: dict[int, int] = {}  # what the tail no longer hands over, and the offset to fetch from
        self.topic = topic
        self._group = group
        self._start = start
        self._stopping = threading.Event()
        self._wanted = threading.Event()  # ends the pause of a member that has nothing to fetch
        self._thread = threading.Thread(target=self._run, name=f"kafka-{group}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask the thread to end; polls end at once."""
        self._stopping.set()
        self._wanted.set()
        self.shut()

    def close(self) -> None:
        """Write what was committed, and leave the group."""
        self.stop()
        self._thread.join()

    def withdraw(self, partitions: Iterable[int]) -> dict[int, int]:
        """Forget these partitions, as an inbox does, and follow the tail there no more."""
        gone = frozenset(partitions)
        finished = super().withdraw(gone)
        self._tail.leave(self, gone)
        for partition in gone:
            self._alone_from.pop(partition, None)
        return finished

    def take(self, partition: int, records: list[Record]) -> bool:
        """Take records from the tail, unless too many lie here unread."""
        if partition in self.holding(READ_AHEAD):
            return False
        self.put(records)
        return True

    def fetch_from(self, partition: int, offset: int) -> None:
        """Note where the tail left off."""
        self._alone_from[partition] = offset
        self._wanted.set()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._read()
                except (faults.KafkaError, OSError) as error:
                    logger.warning("%s reads %s again: %s: %s", self._group, self.topic, type(error).__name__, error)
                    self._stopping.wait(RETRY_SECONDS)
        finally:
            self.shut(failed=not self._stopping.is_set())

    def _read(self) -> None:
        client = self._connect(group_id=self._group)
        try:
            self._begin(client)
            client.subscribe([self.topic], listener=_Listener(self, client))
            stopping, due = False, 0.0
            while not stopping:
                batches = self._poll(client)
                finish_rebalance(client)
                self.put(record(raw) for raw in itertools.chain.from_iterable(batches.values()))
                stopping = self._stopping.is_set()  # asked before the write, so what was committed by then is written
                if stopping or time.monotonic() >= due:
                    self._write(client)
                    due = time.monotonic() + COMMIT_SECONDS
                self._divide(client)
        finally:
            self.take_finished()  # what could not be written by now is read again; closing is not to wait for it
            try:
                client.close(autocommit=False, timeout_ms=milliseconds(ANSWER_SECONDS))
            finally:
                self.withdraw(self.partitions)

    def _poll(self, client: Any) -> Any:
        """Wait for records, or for a while where there are none to fetch; the library would wait in tenths of a second."""
        idle = client.assignment() and client.assignment() == client.paused()
        if idle and not (client._coordinator.need_rejoin() or client._coordinator.rebalance_in_progress()):
            if self._wanted.wait(SLICE_SECONDS) and not self._stopping.is_set():
                self._wanted.clear()
            return client.poll(timeout_ms=0)
        return client.poll(timeout_ms=milliseconds(SLICE_SECONDS))

    def _divide(self, client: Any) -> None:
        """Leave to the tail what it can hand over, and fetch the rest as long as it may read ahead."""
        held = self.holding(READ_AHEAD) | self._tail.followed_by(self)
        for partition in self.partitions - held:
            if self._tail.follow(self, partition, partial(self._position, client, partition)):
                held |= {partition}
        fetch_all_but(client, client.assignment() & set(partitions_of(self.topic, held)))

    def _position(self, client: Any, partition: int) -> int | None:
        """Return the offset of the next record, None where it is not ours; asked while the tail hands out nothing."""
        if partition not in self.partitions:
            return None
        one = TopicPartition(self.topic, partition)
        if partition in self._alone_from:
            seek(client, one, self._alone_from.pop(partition))
        return position_of(client, one)

    def _begin(self, client: Any) -> None:
        """Write down where a group begins that has never read: "latest" is when it first joined, not when it last did.

        A member that dies before its first commit would otherwise begin at the end again, past what it had read.
        """
        partitions = partitions_of(self.topic, client.partitions_for_topic(self.topic))
        if not partitions:
            raise faults.UnknownTopicOrPartitionError(f"there is no topic {self.topic}")
        if self._start == "earliest":
            return
        timeout_ms = milliseconds(ANSWER_SECONDS)
        new = [one for one in partitions if client.committed(one, timeout_ms=timeout_ms) is None]
        if new:
            ends = {one.partition: offset for one, offset in client.end_offsets(new).items()}
            try:
                client.commit(to_commit(self.topic, ends), timeout_ms=timeout_ms)
            except faults.UnknownMemberIdError:
                return  # only members of a group that has some may write: one of them did it

    def _write(self, client: Any) -> None:
        finished = self.take_finished()
        if not finished:
            return
        try:
            client.commit(to_commit(self.topic, finished), timeout_ms=milliseconds(ANSWER_SECONDS))
        except (faults.RetriableError, faults.RebalanceInProgressError):
            self.give_back(finished)
        except (faults.CommitFailedError, faults.IllegalGenerationError, faults.UnknownMemberIdError) as error:
            logger.warning("%s was put out of its group: what it finished last is read again: %s", self._group, error)


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the inbox of a rebalance; runs on the library's own thread while the member's waits in `poll`."""

    def __init__(self, member: Member, client: Any) -> None:
        self._member = member
        self._client = client

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._member.assign(one.partition for one in assigned)

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        finished = self._member.withdraw(one.partition for one in revoked)
        if finished:
            try:
                await self._client.commit_async(to_commit(self._member.topic, finished))
            except faults.KafkaError as error:
                logger.warning("what was finished in %s is read again: %s", self._member.topic, error)

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._member.withdraw(one.partition for one in lost)
