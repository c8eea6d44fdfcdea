"""The log in this process's memory, for a system in one process and for tests; behaves like the one on Kafka."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from layerscope.events.inbox import Inbox
from layerscope.events.kafka import KafkaMessage, Record
from layerscope.events.log import BACKLOG_RECORDS, Consumer, GroupState, LogUnavailable, Revoked, Start, check
from layerscope.events.topics import TOPICS, Topic


@dataclass(slots=True)
class _Group:
    topic: str
    committed: dict[int, int] = field(default_factory=dict)
    members: list[_Member] = field(default_factory=list)


class MemoryLog:
    """A log that ends with its process; the declared topics are there from the start."""

    def __init__(self) -> None:
        """Make the declared topics."""
        self._lock = threading.RLock()
        self._topics: dict[str, list[list[Record]]] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._unkeyed = itertools.count()
        self._closed = False
        self.ensure_topics()

    def publish(self, topic: str, message: KafkaMessage) -> None:
        """Append the message and hand it to every group that reads the topic."""
        check(message)
        with self._lock:
            partitions = self._partitions(topic)
            number = next(self._unkeyed) if message.key is None else murmur2(message.key) & 0x7FFFFFFF
            partition = number % len(partitions)
            record = Record(
                topic=topic,
                partition=partition,
                offset=len(partitions[partition]),
                key=message.key,
                value=message.value,
                headers=message.headers,
                timestamp_ms=time.time_ns() // 1_000_000,
            )
            partitions[partition].append(record)
            for group in self._groups.values():
                if group.topic == topic:
                    for member in group.members:
                        member.put([record])

    def consumer(self, topic: str, group: str, *, start: Start, revoked: Revoked | None = None) -> Consumer:
        """Join a group; its partitions are shared out again."""
        with self._lock:
            partitions = self._partitions(topic)
            joined = self._groups.setdefault((topic, group), _Group(topic))
            for partition, records in enumerate(partitions):
                joined.committed.setdefault(partition, len(records) if start == "latest" else 0)
            member = _Member(self, joined, revoked)
            joined.members.append(member)
            self._share_out(joined)
            return member

    def backlog(
        self, topic: str, group: str, *, start: Start = "earliest", limit: int = BACKLOG_RECORDS
    ) -> list[Record]:
        """Return what the group has yet to finish."""
        with self._lock:
            partitions = self._partitions(topic)
            committed = self._groups[topic, group].committed if (topic, group) in self._groups else {}
            begins = [0 if start == "earliest" else len(records) for records in partitions]
            unread = (records[committed.get(p, begins[p]) :] for p, records in enumerate(partitions))
            return list(itertools.islice(itertools.chain.from_iterable(unread), limit))

    def groups(self, topics: Mapping[str, str]) -> dict[str, GroupState | None]:
        """Return the state of each group of `topics`, which maps it to what it reads."""
        with self._lock:
            return {group: self._state(topic, group) for group, topic in topics.items()}

    def between(self, topic: str, since_ms: int, until_ms: int, *, limit: int = BACKLOG_RECORDS) -> list[Record]:
        """Return the records written in a span of time."""
        with self._lock:
            every = itertools.chain.from_iterable(self._partitions(topic))
            return list(itertools.islice((one for one in every if since_ms <= one.timestamp_ms < until_ms), limit))

    def ensure_topics(self, topics: Iterable[Topic] = TOPICS) -> None:
        """Make the topics that are not there."""
        with self._lock:
            for topic in topics:
                self._topics.setdefault(topic.name, [[] for _ in range(topic.partitions)])

    def close(self) -> None:
        """Close every consumer; nothing can be published or read any more."""
        with self._lock:
            self._closed = True
            for group in self._groups.values():
                for member in list(group.members):
                    member.close()

    def leave(self, group: _Group, member: _Member) -> None:
        """Share out the partitions of a member that goes."""
        with self._lock:
            if member in group.members:
                self.write(group, member.withdraw(member.partitions))
                group.members.remove(member)
                self._share_out(group)

    def write(self, group: _Group, offsets: Mapping[int, int]) -> None:
        """Commit offsets of a group."""
        with self._lock:
            group.committed |= offsets

    def _partitions(self, topic: str) -> list[list[Record]]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        if topic not in self._topics:
            raise LogUnavailable(f"there is no topic {topic}")
        return self._topics[topic]

    def _state(self, topic: str, name: str) -> GroupState | None:
        partitions, group = self._partitions(topic), self._groups.get((topic, name))
        if group is None:
            return None
        lag = sum(len(records) - group.committed.get(place, 0) for place, records in enumerate(partitions))
        return GroupState(bool(group.members), lag)

    def _share_out(self, group: _Group) -> None:
        partitions = self._topics[group.topic]
        shares = [set(range(place, len(partitions), len(group.members))) for place in range(len(group.members))]
        for member, share in zip(group.members, shares, strict=True):
            self.write(group, member.withdraw(member.partitions - share))
        for member, share in zip(group.members, shares, strict=True):
            for partition in share - member.partitions:
                member.assign([partition])
                member.put(partitions[partition][group.committed[partition] :])


class _Member(Inbox):
    """A consumer of the log in memory: what is committed is written at once."""

    def __init__(self, log: MemoryLog, group: _Group, revoked: Revoked | None) -> None:
        super().__init__(revoked)
        self._log = log
        self._group = group

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Write the offsets."""
        super().commit(offsets)
        self._log.write(self._group, self.take_finished())

    def close(self) -> None:
        """Leave the group."""
        self.shut()
        self._log.leave(self._group, self)


def murmur2(data: bytes) -> int:
    """Return the 32-bit hash by which Kafka's clients choose the partition of a key (Appleby's MurmurHash2, seeded)."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for place in range(0, whole, 4):
        word = int.from_bytes(data[place : place + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        value = value * factor & mask ^ word
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return value ^ value >> 15
