"""What the log in memory must keep to, whoever joins, leaves and commits, in whatever order."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from kafka.partitioner.default import murmur2 as kafkas_murmur2
from hypothesis import given

from events.kafka import KafkaMessage
from events.log import Consumer
from events.memory import MemoryLog, murmur2
from events.topics import Topic

TOPIC = "topic"
PARTITIONS = 3


@given(st.binary(max_size=40))
def test_keys_are_hashed_as_kafkas_clients_do(key: bytes) -> None:
    assert murmur2(key) == kafkas_murmur2(key)


class Groups(RuleBasedStateMachine):
    """Two groups on one topic: nothing is passed over, what is committed is not read again, order is kept."""

    members = Bundle("members")

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        self.log.ensure_topics([Topic(TOPIC, PARTITIONS)])
        self.published = 0
        self.lengths = [0] * PARTITIONS
        self.committed: dict[tuple[str, int], int] = defaultdict(int)
        self.held: dict[Consumer, dict[int, int]] = {}  # by partition, the offset that comes next
        self.groups: dict[Consumer, str] = {}

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def publish(self, key: bytes) -> None:
        self.log.publish(TOPIC, KafkaMessage(key, str(self.published).encode()))
        self.lengths[kafkas_murmur2(key) % PARTITIONS if kafkas_murmur2(key) < 2**31 else (kafkas_murmur2(key) & (2**31 - 1)) % PARTITIONS] += 1
        self.published += 1

    @rule(target=members, group=st.sampled_from(["one", "other"]))
    def join(self, group: str) -> Any:
        held: dict[int, int] = {}

        def revoked(partitions: frozenset[int]) -> None:
            for partition in partitions:
                held.pop(partition, None)

        member = self.log.consumer(TOPIC, group, start="earliest", revoked=revoked)
        self.held[member], self.groups[member] = held, group
        return member

    @rule(member=members)
    def read(self, member: Consumer) -> None:
        for record in member.poll(0):
            held = self.held[member]
            expected = held.get(record.partition, self.committed[self.groups[member], record.partition])
            assert record.offset == expected, "a record was passed over, or came again"
            held[record.partition] = record.offset + 1

    @rule(member=members, data=st.data())
    def commit(self, member: Consumer, data: st.DataObject) -> None:
        member.poll(0) if not self.held[member] else None
        self.read(member)
        if self.held[member]:
            partition = data.draw(st.sampled_from(sorted(self.held[member])))
            group = self.groups[member]
            offset = data.draw(st.integers(self.committed[group, partition], self.held[member][partition]))
            member.commit({partition: offset})
            self.committed[group, partition] = offset

    @rule(member=members, partitions=st.sets(st.integers(0, PARTITIONS - 1)))
    def pause_read_resume(self, member: Consumer, partitions: set[int]) -> None:
        self.read(member)
        member.pause(partitions)
        self.log.publish(TOPIC, KafkaMessage(b"a", b"paused"))
        member.resume(partitions)

    @rule(member=consumes(members))
    def leave(self, member: Consumer) -> None:
        member.close()
        assert member.poll(0) == []
        del self.held[member], self.groups[member]

    @invariant()
    def every_partition_of_a_group_that_has_members_is_read_by_exactly_one(self) -> None:
        for group in set(self.groups.values()):
            read = [partition for m, g in self.groups.items() if g == group for partition in m.partitions]
            assert sorted(read) == list(range(PARTITIONS))

    @invariant()
    def the_backlog_is_what_is_not_committed(self) -> None:
        for group in ("one", "other"):
            by_partition: dict[int, list[int]] = defaultdict(list)
            for record in self.log.backlog(TOPIC, group):
                by_partition[record.partition].append(record.offset)
            for partition, offsets in by_partition.items():
                assert offsets[0] == self.committed[group, partition]
                assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
