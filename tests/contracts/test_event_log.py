"""What every log of events does, in memory and on a real Kafka alike."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from layerscope.events.kafka import KafkaMessage, Record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import (
    MESSAGE_BYTES,
    POLL_RECORDS,
    Consumer,
    EventLog,
    GroupState,
    LogUnavailable,
    MessageRefused,
)
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import TOPICS, Topic
from tests.events.library import murmur2 as kafkas_murmur2

PATIENCE_SECONDS = 120.0


class FollowedLog(KafkaLog):
    """A log whose topics have another reader, so that a tail serves whoever joins."""

    def consumer(self, topic: str, group: str, **settings: Any) -> Consumer:
        if topic not in self._tails:
            super().consumer(topic, f"another-{topic}", start="earliest")
        return super().consumer(topic, group, **settings)


ON_KAFKA = {"kafka": KafkaLog, "kafka with another reader": FollowedLog}


@pytest.fixture(
    scope="module", params=["memory", *(pytest.param(name, marks=pytest.mark.services) for name in ON_KAFKA)]
)
def log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    made: EventLog = (
        MemoryLog()
        if request.param == "memory"
        else ON_KAFKA[request.param](request.getfixturevalue("kafka").bootstrap_servers)
    )
    yield made
    made.close()


@pytest.fixture
def topic(log: EventLog) -> str:
    name = f"test.{uuid.uuid4().hex}"
    log.ensure_topics([Topic(name, partitions=3)])
    return name


def message(value: object, key: str = "digits/lenet") -> KafkaMessage:
    return KafkaMessage(key.encode(), str(value).encode())


def publish(log: EventLog, topic: str, count: int, key: Callable[[int], str] = "digits/lenet-{}".format) -> int:
    """Publish numbers; returns how many records these can have become."""
    return sum(patiently(log, topic, message(number, key(number))) for number in range(count))


def patiently(log: EventLog, topic: str, one: KafkaMessage) -> int:
    """Publish as who calls has to, and return in how many attempts: what was not acknowledged may have been written.

    A busy Kafka may not tell of a new topic at the first question, nor in time that it has a record.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    attempts = 0
    while True:
        attempts += 1
        try:
            log.publish(topic, one)
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
        else:
            return attempts


def values(records: list[Record]) -> list[int]:
    return sorted(int(record.value or b"") for record in records)


@contextmanager
def joined(log: EventLog, topic: str, group: str, start: str = "earliest", **settings: object) -> Iterator[Consumer]:
    """Join a group, wait until it reads, and leave it again."""
    consumer = log.consumer(topic, group, start=start, **settings)  # type: ignore[arg-type]
    try:
        eventually(lambda: consumer.partitions)
        yield consumer
    finally:
        consumer.close()


def take(consumer: Consumer, count: int, seconds: float = PATIENCE_SECONDS) -> list[Record]:
    """Poll until there are `count` records."""
    records: list[Record] = []
    deadline = time.monotonic() + seconds
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += consumer.poll(0.5)
    return records


def finish(consumer: Consumer, records: list[Record]) -> None:
    for record in sorted(records, key=lambda record: record.offset):
        consumer.commit({record.partition: record.offset + 1})


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s"
        time.sleep(0.02)


# What is published


def test_a_record_is_read_as_it_was_published(log: EventLog, topic: str) -> None:
    published = KafkaMessage(b"\xff key", b"\x00\xffvalue", (("a", b"\xfe"), ("content-type", b""), ("a", b"again")))
    before = time.time_ns() // 1_000_000
    log.publish(topic, published)
    with joined(log, topic, "reader") as consumer:
        (record,) = take(consumer, 1)
    assert KafkaMessage(record.key, record.value, record.headers) == published
    assert (record.topic, record.offset) == (topic, 0)
    assert before <= record.timestamp_ms <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    "published", [KafkaMessage(b"key", None), KafkaMessage(None, b"value"), KafkaMessage(b"", b"")]
)
def test_a_key_or_a_value_may_be_missing_or_empty(log: EventLog, topic: str, published: KafkaMessage) -> None:
    log.publish(topic, published)
    (record,) = log.backlog(topic, "reader")
    assert (record.key, record.value) == (published.key, published.value)


def test_the_key_decides_the_partition_as_kafkas_clients_do(log: EventLog, topic: str) -> None:
    keys = [f"digits/model-{number}" for number in range(20)]
    for key in keys:
        log.publish(topic, message(0, key))
    found = {record.key: record.partition for record in log.backlog(topic, "reader")}
    assert found == {key.encode(): (kafkas_murmur2(key.encode()) & 0x7FFFFFFF) % 3 for key in keys}


def test_records_of_one_key_keep_their_order(log: EventLog, topic: str) -> None:
    publish(log, topic, 120, key=lambda _: "one")
    with joined(log, topic, "reader") as consumer:
        records = take(consumer, 120)
    assert [record.value for record in records] == [str(number).encode() for number in range(120)]
    assert [record.offset for record in records] == list(range(120))


def test_what_no_log_can_take_is_refused(log: EventLog, topic: str) -> None:
    with pytest.raises(MessageRefused, match="key or a value"):
        log.publish(topic, KafkaMessage(None, None))
    with pytest.raises(MessageRefused, match=str(MESSAGE_BYTES)):
        log.publish(topic, KafkaMessage(b"k", bytes(MESSAGE_BYTES)))
    with pytest.raises(MessageRefused, match=str(MESSAGE_BYTES)):
        log.publish(topic, KafkaMessage(b"k", b"", (("header", bytes(MESSAGE_BYTES)),)))
    assert log.backlog(topic, "reader") == []


def test_the_largest_message_allowed_is_taken(log: EventLog, topic: str) -> None:
    log.publish(topic, KafkaMessage(b"k", bytes(MESSAGE_BYTES - 1)))
    (record,) = log.backlog(topic, "reader")
    assert record.value == bytes(MESSAGE_BYTES - 1)


def test_a_topic_that_is_not_there_takes_nothing(log: EventLog) -> None:
    with pytest.raises(LogUnavailable):
        log.publish("no-such-topic", message(1))
    with pytest.raises(LogUnavailable):
        log.backlog("no-such-topic", "reader")


def test_many_threads_publish_at_once(log: EventLog, topic: str) -> None:
    def work(thread: int) -> None:
        for number in range(25):
            log.publish(topic, message(100 * thread + number, f"model-{thread}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    records = log.backlog(topic, "reader")
    assert values(records) == sorted(100 * thread + number for thread in range(4) for number in range(25))
    for thread in range(4):
        of_one = [int(record.value or b"") for record in records if record.key == f"model-{thread}".encode()]
        assert of_one == sorted(of_one)


def test_topics_are_made_once_and_keep_their_records(log: EventLog, topic: str) -> None:
    publish(log, topic, 3)
    log.ensure_topics([Topic(topic, partitions=3), *TOPICS])
    log.ensure_topics()
    assert values(log.backlog(topic, "reader")) == [0, 1, 2]


# Where a group begins, and goes on


def test_a_new_group_begins_where_it_is_told(log: EventLog, topic: str) -> None:
    publish(log, topic, 5)
    with joined(log, topic, "from-earliest") as earliest, joined(log, topic, "from-latest", "latest") as latest:
        log.publish(topic, message(5))
        assert values(take(latest, 1)) == [5]
        assert values(take(earliest, 6)) == [0, 1, 2, 3, 4, 5]


def test_a_group_goes_on_after_what_it_committed(log: EventLog, topic: str) -> None:
    publish(log, topic, 10, key=lambda _: "one")
    with joined(log, topic, "reader") as consumer:
        finish(consumer, take(consumer, 10)[:4])
    with joined(log, topic, "reader") as consumer:
        assert values(take(consumer, 6)) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_what_a_group_never_committed_is_read_again(log: EventLog, topic: str, start: str) -> None:
    with joined(log, topic, "reader", start) as consumer:
        publish(log, topic, 6)
        take(consumer, 6)
    with joined(log, topic, "reader", start) as consumer:
        assert values(take(consumer, 6)) == [0, 1, 2, 3, 4, 5]


def test_what_comes_while_nobody_reads_waits_for_a_group_that_began_at_the_latest(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader", "latest"):
        pass
    publish(log, topic, 3)
    with joined(log, topic, "reader", "latest") as consumer:
        assert values(take(consumer, 3)) == [0, 1, 2]


def test_groups_do_not_take_from_each_other(log: EventLog, topic: str) -> None:
    publish(log, topic, 4)
    with joined(log, topic, "one") as one, joined(log, topic, "other") as other:
        finish(one, take(one, 4))
        assert values(take(other, 4)) == [0, 1, 2, 3]


def test_the_same_group_name_on_another_topic_is_another_place(log: EventLog, topic: str) -> None:
    other = f"{topic}.other"
    log.ensure_topics([Topic(other, partitions=1)])
    log.publish(topic, message(1))
    log.publish(other, message(2))
    with joined(log, other, "reader") as consumer:
        finish(consumer, take(consumer, 1))
    assert values(log.backlog(topic, "reader")) == [1]
    eventually(lambda: log.backlog(other, "reader") == [])


# Members


def test_two_members_share_the_partitions_and_lose_nothing(log: EventLog, topic: str) -> None:
    with joined(log, topic, "pair") as first, joined(log, topic, "pair") as second:
        eventually(lambda: len(first.partitions | second.partitions) == 3 and not first.partitions & second.partitions)
        publish(log, topic, 30)
        seen: list[Record] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(set(values(seen))) < 30 and time.monotonic() < deadline:
            for member in (first, second):
                records = member.poll(0.1)
                assert {record.partition for record in records} <= member.partitions
                seen += records
                finish(member, records)
    assert set(values(seen)) == set(range(30))


def test_a_member_that_leaves_hands_its_partitions_over(log: EventLog, topic: str) -> None:
    with joined(log, topic, "pair") as staying:
        with joined(log, topic, "pair") as leaving:
            eventually(lambda: len(staying.partitions) < 3 and leaving.partitions)
        eventually(lambda: len(staying.partitions) == 3)
        publish(log, topic, 12)
        assert set(values(take(staying, 12))) == set(range(12))


def test_poll_tells_of_partitions_taken_away_before_it_returns_anything_else(log: EventLog, topic: str) -> None:
    calls: list[tuple[frozenset[int], int]] = []
    with joined(log, topic, "pair", revoked=lambda gone: calls.append((gone, threading.get_ident()))) as first:
        publish(log, topic, 12)
        held = take(first, 12)
        assert calls == []
        with joined(log, topic, "pair") as second:
            eventually(lambda: first.poll(0.1) == [] and calls and len(second.partitions) > 0)
            taken = frozenset().union(*(gone for gone, _ in calls))
            assert {thread for _, thread in calls} == {threading.get_ident()}
            assert taken >= second.partitions
            again = take(second, sum(record.partition in second.partitions for record in held))
            assert {record.partition for record in again} == second.partitions


@pytest.mark.slow
def test_what_is_committed_of_a_partition_that_was_taken_away_is_passed_over(log: EventLog, topic: str) -> None:
    with joined(log, topic, "pair") as first:
        publish(log, topic, 12)
        held = take(first, 12)
        with joined(log, topic, "pair") as second:
            eventually(lambda: not first.poll(0.1) and second.partitions and not first.partitions & second.partitions)
            moved = {record.partition for record in held} & second.partitions
            finish(first, held)
            eventually(lambda: {record.partition for record in log.backlog(topic, "pair")} == moved)


@pytest.mark.slow
def test_a_reader_that_does_not_know_yet_undoes_nothing_that_another_committed(log: EventLog, topic: str) -> None:
    with joined(log, topic, "pair") as first:
        publish(log, topic, 12)
        held = take(first, 12)
        with joined(log, topic, "pair") as second:
            eventually(lambda: second.partitions and not first.partitions & second.partitions)
            moved = second.partitions
            finish(second, take(second, sum(record.partition in moved for record in held)))
        eventually(lambda: len(first.partitions) == 3)
        for partition in moved:
            first.commit({partition: 1})
        time.sleep(1.0)
        assert not {record.partition for record in log.backlog(topic, "pair")} & moved


@pytest.mark.slow
def test_what_was_committed_before_a_partition_moved_is_not_read_again(log: EventLog, topic: str) -> None:
    with joined(log, topic, "pair") as first:
        publish(log, topic, 12)
        finish(first, take(first, 12))
        with joined(log, topic, "pair") as second:
            eventually(lambda: not first.poll(0.1) and second.partitions and not first.partitions & second.partitions)
            log.publish(topic, message(12, "x"))
            last = [*first.poll(0.5), *second.poll(0.5), *first.poll(1.0), *second.poll(1.0)]
            assert values(last) == [12]


# Polling, pausing


def test_a_poll_ends_with_its_timeout(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader") as consumer:
        began = time.monotonic()
        assert consumer.poll(0.3) == []
        assert 0.25 <= time.monotonic() - began < 5
        assert consumer.poll(0) == []


def test_a_poll_returns_no_more_than_so_many_records(log: EventLog, topic: str) -> None:
    publish(log, topic, POLL_RECORDS + 20)
    with joined(log, topic, "reader") as consumer:
        sizes = []
        while sum(sizes) < POLL_RECORDS + 20:
            sizes.append(len(consumer.poll(PATIENCE_SECONDS)))
        assert max(sizes) <= POLL_RECORDS


@pytest.mark.slow
def test_a_waiting_poll_hears_of_a_record_soon(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader", "latest") as consumer:
        delays = []
        for number in range(11):
            sender = threading.Timer(0.05, log.publish, (topic, message(number, f"model-{number}")))
            sender.start()
            (record,) = consumer.poll(PATIENCE_SECONDS)
            delays.append(time.time() - record.timestamp_ms / 1000)
            sender.join()
        assert sorted(delays)[5] < 0.25


def test_closing_ends_a_waiting_poll_at_once(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader") as consumer:
        closer = threading.Timer(0.2, consumer.close)
        closer.start()
        began = time.monotonic()
        assert consumer.poll(PATIENCE_SECONDS) == []
        assert time.monotonic() - began < 5
        closer.join()
        assert consumer.poll(PATIENCE_SECONDS) == []


def test_a_paused_partition_waits_and_the_others_go_on(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader") as consumer:
        eventually(lambda: len(consumer.partitions) == 3)
        publish(log, topic, 30)
        paused = take(consumer, 1)[0].partition
    with joined(log, topic, "reader") as consumer:
        eventually(lambda: len(consumer.partitions) == 3)
        consumer.pause({paused})
        held = sum(record.partition == paused for record in log.backlog(topic, "reader"))
        others = take(consumer, 30 - held)
        assert paused not in {record.partition for record in others}
        assert consumer.poll(0.3) == []
        consumer.resume({paused})
        assert {record.partition for record in take(consumer, held)} == {paused}


@pytest.mark.slow
def test_a_resumed_partition_ends_a_waiting_poll(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader", "latest") as consumer:
        consumer.pause({0, 1, 2})
        publish(log, topic, 3)
        assert consumer.poll(0.5) == []
        resumer = threading.Timer(0.2, consumer.resume, ({0, 1, 2},))
        resumer.start()
        began = time.monotonic()
        assert consumer.poll(PATIENCE_SECONDS)
        assert time.monotonic() - began < 5
        resumer.join()


@pytest.mark.slow
def test_a_record_behind_a_pause_is_there_when_the_pause_ends(log: EventLog, topic: str) -> None:
    """As an ordered Trigger works: one at a time, and the next one must not wait for a fetch."""
    with joined(log, topic, "reader", "latest") as consumer:
        waits = []
        log.publish(topic, message(0, "one"))
        for number in range(1, 8):
            (record,) = consumer.poll(PATIENCE_SECONDS)
            consumer.pause({record.partition})
            log.publish(topic, message(number, "one"))
            assert consumer.poll(0.15) == []
            consumer.commit({record.partition: record.offset + 1})
            began = time.monotonic()
            consumer.resume({record.partition})
            while not consumer.poll(0):
                time.sleep(0.001)
            waits.append(time.monotonic() - began)
            log.publish(topic, message(number, "one"))
        assert sorted(waits)[3] < 0.2


def test_far_more_than_is_read_ahead_behind_a_pause_is_kept(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader", "latest") as consumer:
        consumer.pause({0, 1, 2})
        most = publish(log, topic, 700, key=lambda _: "one")
        assert consumer.poll(0.5) == []
        consumer.resume({0, 1, 2})
        found: list[int] = []
        eventually(lambda: found.extend(int(one.value or b"") for one in consumer.poll(0.5)) or 699 in found)
    assert list(dict.fromkeys(found)) == list(range(700))
    assert len(found) <= most


@pytest.mark.slow
def test_a_reader_that_falls_far_behind_in_every_partition_is_handed_all_of_each(log: EventLog, topic: str) -> None:
    placed = {(kafkas_murmur2(key.encode()) & 0x7FFFFFFF) % 3: key for key in map(str, range(20))}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: patiently(log, topic, message(number, placed[number % 3])), range(2100)))
    with joined(log, topic, "reader") as consumer:
        time.sleep(2.0)  # so much is read ahead, and no more
        assert values(take(consumer, 2100)) == list(range(2100))


# Backlog


def test_the_backlog_is_what_is_queued_or_in_flight(log: EventLog, topic: str) -> None:
    publish(log, topic, 8, key=lambda _: "one")
    assert values(log.backlog(topic, "reader")) == list(range(8))
    assert log.backlog(topic, "reader", start="latest") == []
    with joined(log, topic, "reader") as consumer:
        in_flight = take(consumer, 8)
        assert values(log.backlog(topic, "reader")) == list(range(8))
        finish(consumer, in_flight[:3])
        eventually(lambda: values(log.backlog(topic, "reader")) == [3, 4, 5, 6, 7])
        finish(consumer, in_flight[3:])
        eventually(lambda: log.backlog(topic, "reader") == [])
        log.publish(topic, message(8, "one"))
        assert values(log.backlog(topic, "reader", start="latest")) == [8]


def test_the_backlog_of_a_group_that_began_at_the_latest_is_what_came_since(log: EventLog, topic: str) -> None:
    publish(log, topic, 4)
    with joined(log, topic, "reader", "latest"):
        pass
    log.publish(topic, message(4))
    assert values(log.backlog(topic, "reader", start="latest")) == [4]
    assert values(log.backlog(topic, "reader", start="earliest")) == [4]


def test_the_backlog_is_bounded_in_order_and_repeatable(log: EventLog, topic: str) -> None:
    publish(log, topic, 40)
    whole = log.backlog(topic, "reader")
    assert [(r.partition, r.offset) for r in whole] == sorted((r.partition, r.offset) for r in whole)
    assert len(whole) == 40
    assert len(log.backlog(topic, "reader", limit=7)) == 7
    assert log.backlog(topic, "reader") == whole


def test_reading_the_backlog_takes_nothing_from_the_group(log: EventLog, topic: str) -> None:
    with joined(log, topic, "reader") as consumer:
        publish(log, topic, 5)
        log.backlog(topic, "reader")
        assert values(take(consumer, 5)) == [0, 1, 2, 3, 4]
        assert len(consumer.partitions) == 3


# The end


def test_records_are_found_by_the_time_at_which_they_were_written(log: EventLog, topic: str) -> None:
    publish(log, topic, 3)
    time.sleep(0.05)
    since = time.time_ns() // 1_000_000
    for number in (3, 4):
        log.publish(topic, message(number, f"digits/lenet-{number}"))
    time.sleep(0.05)
    until = time.time_ns() // 1_000_000
    publish(log, topic, 2)
    assert values(log.between(topic, since, until)) == [3, 4]
    assert len(log.between(topic, since - 3_600_000, until + 3_600_000)) == 7
    assert len(log.between(topic, since, until, limit=1)) == 1
    assert log.between(topic, until + 3_600_000, until + 7_200_000) == []
    with pytest.raises(LogUnavailable):
        log.between("not.there", since, until)


def test_a_closed_log_says_so(request: pytest.FixtureRequest, log: EventLog, topic: str) -> None:
    other = MemoryLog() if isinstance(log, MemoryLog) else KafkaLog(request.getfixturevalue("kafka").bootstrap_servers)
    other.ensure_topics([Topic(topic, partitions=3)])
    consumer = other.consumer(topic, "reader", start="earliest")
    other.close()
    assert consumer.poll(PATIENCE_SECONDS) == []
    for use in (lambda: other.publish(topic, message(1)), lambda: other.backlog(topic, "reader")):
        with pytest.raises(LogUnavailable, match="closed"):
            use()
    with pytest.raises(LogUnavailable, match="closed"):
        other.consumer(topic, "reader", start="earliest")


def test_a_group_tells_whether_anybody_reads_for_it_and_how_much_it_has_not_finished(log: EventLog, topic: str) -> None:
    reader, nobody = f"{topic}-reader", f"{topic}-nobody"
    publish(log, topic, 4)
    with joined(log, topic, reader) as consumer:
        read = take(consumer, 4)
        ends: dict[int, int] = {}
        for one in read[:3]:
            ends[one.partition] = max(ends.get(one.partition, 0), one.offset + 1)
        consumer.commit(ends)
        finished = sum(one.offset < ends.get(one.partition, 0) for one in read)

        def states() -> dict[str, GroupState | None]:
            return log.groups({reader: topic, nobody: topic})

        eventually(lambda: states()[reader] == GroupState(has_members=True, lag=4 - finished))
        assert states()[nobody] is None
    eventually(lambda: states()[reader] == GroupState(has_members=False, lag=4 - finished))
