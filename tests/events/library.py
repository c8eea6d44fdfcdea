"""Kafka's client library, as the reference in tests."""

# ruff: noqa: I001
from __future__ import annotations

import layerscope.events.kafka_client  # noqa: F401  first, for it quiets what the library warns of when it is imported
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.partitioner.default import murmur2

__all__ = (
    "ConfigResource",
    "ConfigResourceType",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
    "TopicPartition",
    "murmur2",
)
