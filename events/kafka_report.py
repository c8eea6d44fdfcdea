"""What a Kafka says of itself: its brokers, topics and consumer groups, as `layerscope doctor` asks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from layerscope.events import kafka_client
from layerscope.events.kafka_client import KafkaAdminClient, OffsetSpec, TopicPartition, faults, partitions_of
from layerscope.events.kafka_connection import Security, connect
from layerscope.events.log import GroupState, LogUnavailable


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is: its partitions, the replicas of the one with the fewest, and the partitions that lack some."""

    partitions: int
    replicas: int
    behind: int


class KafkaReport:
    """Answers from one administrator, for as long as `opened`."""

    def __init__(self, admin: Any) -> None:
        """Use a client of the library."""
        self._admin = admin

    def brokers(self) -> list[tuple[str, int]]:
        """Return the addresses that brokers give themselves, at which every client has to reach them."""
        with _answering():
            return sorted((one["host"], one["port"]) for one in self._admin.describe_cluster()["brokers"])

    def topics(self, names: Iterable[str]) -> dict[str, TopicState | None]:
        """Return the state of each topic; None: it is not there."""
        with _answering():
            described = self._admin.describe_topics(list(names))
        return {one["name"]: _topic(one) for one in described}

    def groups(self, topics: Mapping[str, str]) -> dict[str, GroupState | None]:
        """Return the state of each group of `topics`, which maps it to what it reads; None: it is not there."""
        with _answering():
            listed = {one["group_id"]: one["group_state"] for one in self._admin.list_groups()}
            spans = {topic: self._spans(topic) for topic in set(topics.values())}
            found: dict[str, GroupState | None] = dict.fromkeys(topics)
            for group in listed.keys() & topics.keys():
                has_members = listed[group] not in ("Empty", "Dead")
                found[group] = GroupState(has_members, self._lag(group, spans[topics[group]]))
            return found

    def _spans(self, topic: str) -> dict[TopicPartition, range]:
        (described,) = self._admin.describe_topics([topic])
        partitions = partitions_of(topic, (one["partition_index"] for one in described["partitions"]))
        first = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        ends = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return {one: range(first[one].offset, ends[one].offset) for one in partitions}

    def _lag(self, group: str, spans: Mapping[TopicPartition, range]) -> int | None:
        """Return what a group has not finished; of a partition in which it has finished nothing that is all of it."""
        found = self._admin.list_group_offsets({group: list(spans)})[group]
        committed: dict[TopicPartition, int] = {one: at.offset for one, at in found.items()}
        if all(offset < 0 for offset in committed.values()):
            return None
        return sum(max(0, span.stop - max(span.start, committed[one])) for one, span in spans.items())


@contextmanager
def opened(bootstrap_servers: str, security: Security) -> Iterator[KafkaReport]:
    """Connect for the length of the block.

    Raises:
        LogUnavailable: no broker can be used; here and in every question.
    """
    with _answering():
        admin = connect(KafkaAdminClient, bootstrap_servers, security, **kafka_client.ADMIN)
    with closing(admin):
        yield KafkaReport(admin)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (faults.KafkaError, OSError) as error:
        raise LogUnavailable(str(error)) from error


def _topic(described: Mapping[str, Any]) -> TopicState | None:
    if described["error_code"]:
        fault = faults.for_code(described["error_code"])
        if fault is faults.UnknownTopicOrPartitionError:
            return None
        raise LogUnavailable(f"the topic {described['name']} cannot be asked: {fault.__name__}")
    partitions = described["partitions"]
    replicas = min(len(one["replica_nodes"]) for one in partitions)
    behind = sum(len(one["isr_nodes"]) < len(one["replica_nodes"]) for one in partitions)
    return TopicState(len(partitions), replicas, behind)
