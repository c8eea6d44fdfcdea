"""The topics and consumer groups: names, and what is fixed when a topic is made.

What is written here in capitals are the names of a system that has its Kafka for itself; `Tenant` has everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

S3_RAW: Final = "s3.raw"
EVENTS: Final = "layerscope.events"
DEAD_LETTERS: Final = "layerscope.dlq"

_DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic; `retention_ms` is how long a record is kept, None: for ever."""

    name: str
    partitions: int
    retention_ms: int | None = None


def trigger_group(namespace: str, trigger: str) -> str:
    """Return the consumer group of a Trigger, as Knative names it."""
    return f"knative-trigger-{namespace}-{trigger}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of several systems on a Kafka: its topics begin with a prefix, its groups have the namespace in their names.

    `partitions`: as many as GPU replicas are meant to run, for an ordered Trigger has one call in flight in each. The
    notifications come in as many; dead letters are few and read by one.
    """

    namespace: str = "layerscope"
    topic_prefix: str = ""
    partitions: int = 3

    @property
    def s3_raw(self) -> str:
        """Return the topic of the store's notifications."""
        return self.topic_prefix + S3_RAW

    @property
    def events(self) -> str:
        """Return the topic of the log."""
        return self.topic_prefix + EVENTS

    @property
    def dead_letters(self) -> str:
        """Return the topic of what no retry can help."""
        return self.topic_prefix + DEAD_LETTERS

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Return the topics as they are made."""
        return (
            Topic(self.s3_raw, self.partitions, retention_ms=7 * _DAY_MS),
            Topic(self.events, self.partitions),
            Topic(self.dead_letters, partitions=1, retention_ms=90 * _DAY_MS),
        )

    @property
    def announce_group(self) -> str:
        """Return the consumer group of the KafkaSource that feeds `announce`."""
        return f"{self.namespace}-announce"

    @property
    def dead_letters_group(self) -> str:
        """Return the consumer group of the KafkaSource that feeds `replay`."""
        return f"{self.namespace}-dead-letters"

    def trigger_group(self, trigger: str) -> str:
        """Return the consumer group of a Trigger."""
        return trigger_group(self.namespace, trigger)


TOPICS: Final = Tenant().topics
ANNOUNCE_GROUP: Final = Tenant().announce_group
