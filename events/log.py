"""What a log of events is, whichever it is: Kafka (`events.kafka_log`) or this process's memory (`events.memory`).

Delivery is at least once: what a group has not committed is read again by whoever reads for the group next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from layerscope.events.kafka import KafkaMessage, Record
from layerscope.events.topics import TOPICS, Topic

Start = Literal["earliest", "latest"]
Revoked = Callable[[frozenset[int]], None]

MESSAGE_BYTES: Final = 1_000_000  # Kafka's own limit is 1 MiB with headers and framing
POLL_RECORDS: Final = 50
BACKLOG_RECORDS: Final = 10_000


class LogUnavailable(Exception):
    """The log does not answer in time, or has no such topic; what was being published may or may not be there."""


class MessageRefused(ValueError):
    """No log will ever take this message: it is too large, or has neither key nor value."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group: whether anybody reads for it, and how many records it has not finished; None: it never read."""

    has_members: bool
    lag: int | None


class Consumer(Protocol):
    """One member of a group, reading one topic; every method may be called from any thread, `poll` from one."""

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that this member reads now; empty until it has joined."""

    def poll(self, timeout_seconds: float) -> list[Record]:
        """Return the next records, at once when there are any, none after the timeout or when closed.

        When partitions were taken away, calls `revoked` with them first: what is in flight there is someone else's.
        """

    def pause(self, partitions: Set[int]) -> None:
        """Return no records of these partitions until they are resumed, or taken away."""

    def resume(self, partitions: Set[int]) -> None:
        """Go on with these partitions; a poll that is waiting hears of it."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note, by partition, the offset that comes after the last finished record.

        The log has it within a second, and before the partition is taken away or the consumer is closed; offsets of
        partitions that are no longer read here are passed over.
        """

    def close(self) -> None:
        """Leave the group, with what was committed; the records not committed are read again."""


class EventLog(Protocol):
    """A log with topics, partitions by key, and groups of consumers."""

    def publish(self, topic: str, message: KafkaMessage) -> None:
        """Append the message and return once the log has it for good.

        Raises:
            LogUnavailable: not within some ten seconds.
            MessageRefused: never.
        """

    def consumer(self, topic: str, group: str, *, start: Start, revoked: Revoked | None = None) -> Consumer:
        """Join a group, in the background; `start` says where a group begins that has never read this topic."""

    def backlog(
        self, topic: str, group: str, *, start: Start = "earliest", limit: int = BACKLOG_RECORDS
    ) -> list[Record]:
        """Return what the group has yet to finish, queued or in flight, as of now; at most `limit` records.

        Raises:
            LogUnavailable: the log does not answer.
        """

    def between(self, topic: str, since_ms: int, until_ms: int, *, limit: int = BACKLOG_RECORDS) -> list[Record]:
        """Return the records written in a span of time, in milliseconds since 1970, its end left out; at most `limit`.

        Raises:
            LogUnavailable: the log does not answer.
        """

    def groups(self, topics: Mapping[str, str]) -> dict[str, GroupState | None]:
        """Return the state of each group of `topics`, which maps it to what it reads; None: there is no such group.

        Raises:
            LogUnavailable: the log does not answer.
        """

    def ensure_topics(self, topics: Iterable[Topic] = TOPICS) -> None:
        """Make the topics that are not there; those that are stay as they are.

        Raises:
            LogUnavailable: the log does not answer.
        """

    def close(self) -> None:
        """Close every consumer, and the log."""


def check(message: KafkaMessage) -> None:
    """Refuse what no log takes.

    Raises:
        MessageRefused: it is too large, or empty.
    """
    if message.key is None and message.value is None:
        raise MessageRefused("a record needs a key or a value")
    size = len(message.key or b"") + len(message.value or b"")
    size += sum(len(name.encode()) + len(value) for name, value in message.headers)
    if size > MESSAGE_BYTES:
        raise MessageRefused(f"the message has {size} bytes, {MESSAGE_BYTES} are allowed")
