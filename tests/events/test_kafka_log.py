"""What only the log on Kafka has to stand: brokers that are away, die or hang, and readers that are killed."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from layerscope.events import kafka_client
from layerscope.events.kafka import KafkaMessage
from layerscope.events.kafka_connection import UNSECURED, make_consumer
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import LogUnavailable
from layerscope.events.topics import DEAD_LETTERS, EVENTS, S3_RAW, TOPICS, Topic
from tests.events.kafka_server import KafkaServer, broker_ports, running
from tests.events.library import ConfigResource, ConfigResourceType, KafkaAdminClient

PATIENCE_SECONDS = 120.0
PUBLISH_SECONDS = 20.0  # what `publish` promises, and as much again for a busy machine


@pytest.fixture(scope="module")
def server(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Return a Kafka to be killed and held."""
    with running(tmp_path_factory.mktemp("kafka")) as started:
        yield started


class Publisher(threading.Thread):
    """Publishes one number after the other, each until the log has it."""

    def __init__(self, log: KafkaLog, topic: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.log, self.topic = log, topic
        self.acknowledged: list[bytes] = []
        self.longest = 0.0
        self.failures = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            value = f"{self.name}-{number}".encode()
            while not self.stopping.wait(0.01):
                began = time.monotonic()
                try:
                    self.log.publish(self.topic, KafkaMessage(self.name.encode(), value))
                except LogUnavailable:
                    self.failures += 1
                else:
                    self.acknowledged.append(value)
                    break
                finally:
                    self.longest = max(self.longest, time.monotonic() - began)
            if self.stopping.is_set():
                return


class Reading(threading.Thread):
    """Reads for a group, and commits each record as it comes."""

    def __init__(self, log: KafkaLog, topic: str, group: str) -> None:
        super().__init__(name=group, daemon=True)
        self.consumer = log.consumer(topic, group, start="earliest")
        self.seen: dict[int, list[tuple[int, bytes]]] = {0: [], 1: [], 2: []}
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            for record in self.consumer.poll(0.5):
                self.seen[record.partition].append((record.offset, record.value or b""))
                self.consumer.commit({record.partition: record.offset + 1})

    def values(self) -> set[bytes]:
        return {value for read_here in self.seen.values() for _, value in read_here}


@contextmanager
def at_work(*threads: Publisher | Reading) -> Iterator[None]:
    """Start threads, and stop them whatever the test comes to: on a log that is closed they would never rest."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop(*threads)


def stop(*threads: Publisher | Reading) -> None:
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


@pytest.mark.services
@pytest.mark.parametrize("groups", [1, 3])  # alone, and served by the topic's tail
def test_a_broker_that_is_killed_costs_no_acknowledged_record_and_stops_no_reader(
    server: KafkaServer, log: KafkaLog, topic: str, groups: int
) -> None:
    readers = [Reading(log, topic, f"reader{number}") for number in range(groups)]
    publishers = [Publisher(log, topic, f"publisher{number}") for number in range(3)]
    with at_work(*readers, *publishers):
        _until(lambda: all(len(reader.values()) > 100 for reader in readers))
        server.signal(signal.SIGKILL)
        server.wait_for_restart()
        log.ensure_topics([Topic(f"{topic}.later", partitions=1)])  # all brokers may still be fenced
        before = [len(publisher.acknowledged) for publisher in publishers]
        _until(lambda: all(len(p.acknowledged) > n + 20 for p, n in zip(publishers, before, strict=True)))
        stop(*publishers)
        acknowledged = {value for publisher in publishers for value in publisher.acknowledged}
        _until(lambda: all(acknowledged <= reader.values() for reader in readers))
        _until(lambda: not any(log.backlog(topic, reader.name) for reader in readers))

    assert max(publisher.longest for publisher in publishers) < PUBLISH_SECONDS
    for read_here in itertools.chain.from_iterable(reader.seen.values() for reader in readers):
        first_seen = list(dict.fromkeys(offset for offset, _ in read_here))
        assert first_seen == list(range(len(first_seen))), "a record was passed over"


@pytest.mark.services
def test_what_was_started_while_no_broker_was_there_works_once_one_is(real_servers: None, tmp_path: Path) -> None:
    ports = broker_ports()
    with closing(KafkaLog(f"127.0.0.1:{ports[0]}")) as log:
        consumer = log.consumer(EVENTS, "reader", start="latest")
        with pytest.raises(LogUnavailable):
            log.publish(EVENTS, KafkaMessage(b"k", b"too early"))
        with running(tmp_path, ports):
            log.ensure_topics()
            _until(lambda: consumer.partitions)
            log.publish(EVENTS, KafkaMessage(b"k", b"v"))
            assert [record.value for record in consumer.poll(PATIENCE_SECONDS)] == [b"v"]


@pytest.mark.slow
def test_without_a_broker_every_call_ends_soon_and_leaves_nothing_behind() -> None:
    threads_before = set(threading.enumerate())
    log = KafkaLog(f"127.0.0.1:{broker_ports()[0]}")
    consumer = log.consumer(EVENTS, "reader", start="earliest")
    calls = (
        lambda: log.publish(EVENTS, KafkaMessage(b"k", b"v")),
        lambda: log.backlog(EVENTS, "reader"),
        log.ensure_topics,
    )
    took: list[float] = []

    def work(call: Callable[[], object]) -> None:
        began = time.monotonic()
        with suppress(LogUnavailable):
            call()
            return
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=work, args=(call,)) for call in calls * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert len(took) == len(threads)
    assert max(took) < PUBLISH_SECONDS
    assert consumer.poll(0.1) == []
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < PUBLISH_SECONDS
    _until(lambda: set(threading.enumerate()) <= threads_before)


@pytest.mark.services
def test_a_broker_that_hangs_holds_nobody_up_and_is_used_again_when_it_wakes(
    server: KafkaServer, log: KafkaLog, topic: str
) -> None:
    consumer = log.consumer(topic, "reader", start="earliest")
    log.publish(topic, KafkaMessage(b"k", b"before"))
    assert [record.value for record in consumer.poll(PATIENCE_SECONDS)] == [b"before"]
    log.backlog(topic, "reader")
    server.signal(signal.SIGSTOP)
    try:
        for call in (lambda: log.publish(topic, KafkaMessage(b"k", b"v")), lambda: log.backlog(topic, "reader")):
            began = time.monotonic()
            with pytest.raises(LogUnavailable):
                call()
            assert time.monotonic() - began < PUBLISH_SECONDS
    finally:
        server.signal(signal.SIGCONT)

    def published() -> bool:
        with suppress(LogUnavailable):
            log.publish(topic, KafkaMessage(b"k", b"after"))
            return True
        return False

    _until(published)
    read: list[bytes | None] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while b"after" not in read and time.monotonic() < deadline:
        read += [record.value for record in consumer.poll(1.0)]
    assert b"after" in read
    _until(lambda: _values(log, topic)[-1:] == [b"after"])


@pytest.mark.services
def test_closing_ends_soon_while_the_broker_hangs(server: KafkaServer) -> None:
    log = KafkaLog(server.bootstrap_servers)
    log.ensure_topics()
    consumers = [log.consumer(EVENTS, f"reader{number}", start="earliest") for number in range(3)]
    _until(lambda: all(consumer.partitions for consumer in consumers))
    for consumer in consumers:
        consumer.commit({0: 0})
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        log.close()
        assert time.monotonic() - began < PUBLISH_SECONDS
    finally:
        server.signal(signal.SIGCONT)


READER = """
import sys
from layerscope.events.kafka_log import KafkaLog
consumer = KafkaLog(sys.argv[1]).consumer(sys.argv[2], "reader", start="latest")
while not consumer.partitions: pass
print("joined", flush=True)
print(len(consumer.poll(60)), flush=True)
consumer.poll(600)
"""


@pytest.mark.services
def test_what_a_killed_reader_held_is_read_by_the_next_once_its_session_is_over(
    server: KafkaServer, log: KafkaLog, topic: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", READER, server.bootstrap_servers, topic], stdout=-1) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"joined\n"
        log.publish(topic, KafkaMessage(b"k", b"held"))
        assert killed.stdout.readline() == b"1\n"
        killed.kill()
    consumer = log.consumer(topic, "reader", start="latest")
    assert [record.value for record in consumer.poll(PATIENCE_SECONDS)] == [b"held"]


@pytest.mark.services
def test_a_record_that_comes_while_a_poll_is_about_to_ask_for_more_delays_neither_itself_nor_the_next(
    server: KafkaServer, log: KafkaLog, topic: str
) -> None:
    with closing(make_consumer(server.bootstrap_servers, UNSECURED)) as consumer:
        partitions = kafka_client.partitions_of(topic, range(3))
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        log.publish(topic, KafkaMessage(b"model", b"before"))
        _until(lambda: consumer.poll(timeout_ms=100))  # from now on the broker names only partitions that have news
        fetcher = consumer._fetcher
        _until(lambda: not consumer.poll(timeout_ms=100) and fetcher._nodes_with_pending_fetch_requests)
        look, looks = fetcher.fetched_records, itertools.count()

        def interrupted(*arguments: object, **named: object) -> object:
            found = look(*arguments, **named)
            if next(looks) == 0:  # it finds nothing; and now something comes
                log.publish(topic, KafkaMessage(b"model", b"between"))
                _until(lambda: fetcher._completed_fetches and not fetcher._nodes_with_pending_fetch_requests)
            return found

        fetcher.fetched_records = interrupted
        for value in (b"between", b"after"):
            began = time.monotonic()
            polled = consumer.poll(timeout_ms=10_000)
            assert [one.value for some in polled.values() for one in some] == [value]
            assert time.monotonic() - began < 0.001 * kafka_client.CONSUMER["fetch_max_wait_ms"] / 2
            log.publish(topic, KafkaMessage(b"model", b"after"))


@pytest.mark.services
def test_many_threads_may_ask_for_a_backlog_at_once(log: KafkaLog, topic: str) -> None:
    log.publish(topic, KafkaMessage(b"k", b"v"))
    with ThreadPoolExecutor(24) as threads:
        lengths = list(threads.map(lambda number: len(log.backlog(topic, f"group{number}", limit=1)), range(48)))
    assert lengths == [1] * 48


@pytest.mark.services
def test_topics_are_made_as_declared(server: KafkaServer, log: KafkaLog) -> None:
    log.ensure_topics()
    with closing(KafkaAdminClient(bootstrap_servers=server.bootstrap_servers)) as admin:
        described = {topic["name"]: topic for topic in admin.describe_topics([topic.name for topic in TOPICS])}
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in TOPICS]
        settings = admin.describe_configs(asked)["topic"]
    assert {name: len(topic["partitions"]) for name, topic in described.items()} == {
        S3_RAW: 3,
        EVENTS: 3,
        DEAD_LETTERS: 1,
    }
    assert {name: int(setting["retention.ms"]["value"]) for name, setting in settings.items()} == {
        S3_RAW: 7 * 86_400_000,
        EVENTS: -1,
        DEAD_LETTERS: 90 * 86_400_000,
    }


@pytest.mark.slow
def test_without_crc32c_it_says_so_at_the_start() -> None:
    program = (
        "import sys; sys.modules['crc32c'] = None\n"
        "from layerscope.events.kafka_log import KafkaLog; KafkaLog('127.0.0.1:1')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "needs the package crc32c" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_importing_the_log_connects_to_nothing_and_starts_nothing() -> None:
    program = (
        "import threading; from layerscope.events.kafka_log import *; KafkaLog('x:1'); print(threading.active_count())"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "1\n"


def _values(log: KafkaLog, topic: str) -> list[bytes | None]:
    with suppress(LogUnavailable):
        return [record.value for record in log.backlog(topic, "nobody")]
    return []


def _until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s"
        time.sleep(0.05)
