"""The topics: names, and what is fixed when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

S3_RAW: Final = "s3.raw"
EVENTS: Final = "layerscope.events"
DEAD_LETTERS: Final = "layerscope.dlq"

ANNOUNCE_GROUP: Final = "layerscope-announce"
"""The consumer group of the KafkaSource that feeds `announce`."""

_DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic; `retention_ms` is how long a record is kept, None: for ever."""

    name: str
    partitions: int
    retention_ms: int | None = None


# As many partitions as GPU replicas are meant to run, for an ordered Trigger has one call in flight in each. The
# notifications come in as many; dead letters are few and read by one.
TOPICS: Final = (
    Topic(S3_RAW, partitions=3, retention_ms=7 * _DAY_MS),
    Topic(EVENTS, partitions=3),
    Topic(DEAD_LETTERS, partitions=1, retention_ms=90 * _DAY_MS),
)


def trigger_group(namespace: str, trigger: str) -> str:
    """Return the consumer group of a Trigger, as Knative names it."""
    return f"knative-trigger-{namespace}-{trigger}"
