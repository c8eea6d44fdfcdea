"""Kafka's client library, as the reference in tests."""

# ruff: noqa: I001
from __future__ import annotations

import layerscope.events.kafka_client  # noqa: F401  first, for it quiets what the library warns of when it is imported
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.partitioner.default import murmur2
from kafka.record.default_records import DefaultRecordBatchBuilder as BatchBuilder
from kafka.record.memory_records import MemoryRecords

__all__ = (
    "BatchBuilder",
    "ConfigResource",
    "ConfigResourceType",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
    "MemoryRecords",
    "TopicPartition",
    "murmur2",
)
