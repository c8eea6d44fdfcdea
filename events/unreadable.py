"""Records that cannot be decoded, as this process tells of them: each once in its log, and counted."""

from __future__ import annotations

import logging
from functools import lru_cache

from prometheus_client import Counter

from layerscope.events.kafka import Fault, Record

logger = logging.getLogger(__name__)

_unreadable = Counter(
    "layerscope_log_unreadable_records", "Records of the log that could not be decoded, and were passed over", ["topic"]
)


def note(record: Record) -> None:
    """Log and count, once in this process, a record that cannot be read."""
    if record.fault is not None:
        _note(record.topic, record.partition, record.offset, record.fault)


@lru_cache(4096)  # every group that reads the topic meets the same one
def _note(topic: str, partition: int, offset: int, fault: Fault) -> None:
    which = f"record {offset}" if fault.first == offset else f"records {fault.first} to {offset}"
    logger.error("passed over: the %s of %s, partition %d, cannot be read: %s", which, topic, partition, fault.reason)
    _unreadable.labels(topic).inc(offset - fault.first + 1)
