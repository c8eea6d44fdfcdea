"""The Kafka that tests share, unless a module has one of its own to harm; a log on it, and a topic of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import Topic
from tests.events.kafka_server import KafkaServer


@pytest.fixture(scope="module")
def server(kafka: KafkaServer) -> KafkaServer:
    return kafka


@pytest.fixture
def log(server: KafkaServer) -> Iterator[KafkaLog]:
    with closing(KafkaLog(server.bootstrap_servers)) as made:
        yield made


@pytest.fixture
def topic(log: KafkaLog) -> str:
    name = f"test.{uuid.uuid4().hex}"
    log.ensure_topics([Topic(name, partitions=3)])
    return name
