"""The log on Kafka; the only place that knows the client library.

Three ways in: a producer that all threads share, made when first needed and again after it failed; one member of a
group for each consumer, on a thread of its own; and a reader outside any group, for the backlog.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import kafka.errors
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from events.inbox import Inbox
from events.kafka import KafkaMessage, Record
from events.log import BACKLOG_RECORDS, Consumer, LogUnavailable, MessageRefused, Revoked, Start, check
from events.topics import TOPICS, Topic

logger = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 4.0
DELIVERY_SECONDS: Final = 5.0
SLICE_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0
READ_AHEAD: Final = 200

ClientT = TypeVar("ClientT")


class KafkaLog:
    """A log on the brokers at `bootstrap_servers` ("host:port,host:port")."""

    def __init__(self, bootstrap_servers: str, *, replication_factor: int = -1) -> None:
        """Connect to nothing yet; `replication_factor` of the topics it makes, -1: as the brokers are set.

        Raises:
            RuntimeError: the package crc32c is not installed.
        """
        _require_crc32c()
        self._servers = bootstrap_servers.split(",")
        self._replication_factor = replication_factor
        self._lock = threading.Lock()
        self._producer: Any = None
        self._failed_at = -1.0
        self._consumers: list[_Member] = []
        self._closed = False

