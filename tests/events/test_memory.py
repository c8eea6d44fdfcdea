"""What the log in memory must keep to, whoever joins, leaves, pauses and commits, in whatever order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from layerscope.events.kafka import KafkaMessage
from layerscope.events.log import Consumer
from layerscope.events.memory import MemoryLog, murmur2
from layerscope.events.topics import Topic
from tests.events.library import murmur2 as kafkas_murmur2

TOPIC = "topic"
PARTITIONS = range(3)


@given(st.binary(max_size=40))
def test_keys_are_hashed_as_kafkas_clients_do(key: bytes) -> None:
    assert murmur2(key) == kafkas_murmur2(key)


@dataclass(eq=False)
class Member:
    group: str
    nexts: dict[int, int] = field(default_factory=dict)  # of each partition that it has read from
    paused: set[int] = field(default_factory=set)
    consumer: Consumer = field(init=False)

    def forget(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            self.nexts.pop(partition, None)
        self.paused -= partitions


class Groups(RuleBasedStateMachine):
    """Two groups on one topic: nothing is passed over, nothing committed comes again, partitions keep their order."""

    members = Bundle("members")

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        self.log.ensure_topics([Topic(TOPIC, len(PARTITIONS))])
        self.committed: Counter[tuple[str, int]] = Counter()
        self.present: list[Member] = []

    @rule(keys=st.lists(st.binary(max_size=2), min_size=1, max_size=80))
    def publish(self, keys: list[bytes]) -> None:
        for key in keys:
            self.log.publish(TOPIC, KafkaMessage(key, b""))

    @rule(target=members, group=st.sampled_from(["one", "other"]))
    def join(self, group: str) -> Member:
        member = Member(group)
        member.consumer = self.log.consumer(TOPIC, group, start="earliest", revoked=member.forget)
        self.present.append(member)
        return member

    @rule(member=members)
    def read(self, member: Member) -> None:
        while records := member.consumer.poll(0):
            for record in records:
                assert record.partition not in member.paused
                expected = member.nexts.get(record.partition, self.committed[member.group, record.partition])
                assert record.offset == expected, "a record was passed over, or came again"
                member.nexts[record.partition] = record.offset + 1
        for partition in member.consumer.partitions - member.paused:
            reached = member.nexts.get(partition, self.committed[member.group, partition])
            assert reached == self._lengths()[partition], "a record does not come"

    @rule(member=members, data=st.data())
    def commit(self, member: Member, data: st.DataObject) -> None:
        self.read(member)
        for partition, reached in member.nexts.items():
            offset = data.draw(st.integers(self.committed[member.group, partition], reached))
            member.consumer.commit({partition: offset})
            self.committed[member.group, partition] = offset

    @rule(member=members, partitions=st.sets(st.sampled_from(PARTITIONS)))
    def pause(self, member: Member, partitions: set[int]) -> None:
        self.read(member)
        member.consumer.pause(partitions)
        member.paused |= partitions & member.consumer.partitions

    @rule(member=members, partitions=st.sets(st.sampled_from(PARTITIONS)))
    def resume(self, member: Member, partitions: set[int]) -> None:
        member.consumer.resume(partitions)
        member.paused -= partitions

    @rule(member=consumes(members))
    def leave(self, member: Member) -> None:
        member.consumer.close()
        assert member.consumer.poll(0) == []
        self.present.remove(member)

    @invariant()
    def each_partition_is_read_by_one_member_of_each_group(self) -> None:
        for group in {member.group for member in self.present}:
            shares = [member.consumer.partitions for member in self.present if member.group == group]
            assert sorted(partition for share in shares for partition in share) == list(PARTITIONS)

    @invariant()
    def the_backlog_is_what_is_not_committed(self) -> None:
        for group in ("one", "other"):
            unread = [(record.partition, record.offset) for record in self.log.backlog(TOPIC, group)]
            assert unread == [
                (partition, offset)
                for partition in PARTITIONS
                for offset in range(self.committed[group, partition], self._lengths()[partition])
            ]

    def _lengths(self) -> Counter[int]:
        return Counter(record.partition for record in self.log.backlog(TOPIC, "nobody"))


TestGroups = pytest.mark.slow(Groups.TestCase)
