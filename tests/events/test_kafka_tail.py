"""What several readers of one topic on Kafka have, whom its tail serves: each record, in order, whatever happens."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from layerscope.events import kafka_client
from layerscope.events.kafka import KafkaMessage, Record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.kafka_member import READ_AHEAD, Member
from layerscope.events.kafka_tail import Tail
from layerscope.events.topics import Topic
from tests.events.kafka_server import KafkaServer
from tests.events.library import KafkaAdminClient, KafkaProducer

PATIENCE_SECONDS = 120.0
PARTITIONS = 3


class Reader:
    """A follower that has room for so many records."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.taken: list[int] = []
        self.alone_from: dict[int, int] = {}

    def take(self, partition: int, records: list[Record]) -> bool:
        if len(self.taken) + len(records) > self.room:
            return False
        self.taken += [record.offset for record in records]
        return True

    def fetch_from(self, partition: int, offset: int) -> None:
        self.alone_from[partition] = offset


def tail_at(offset: int) -> Tail:
    tail = Tail(lambda: None, "topic")
    tail._begin({0: offset})
    return tail


def records_at(*offsets: int) -> list[Record]:
    return [Record("topic", 0, offset, None, b"", (), 0) for offset in offsets]


def test_only_who_stands_where_the_tail_stands_follows() -> None:
    tail, reader = tail_at(10), Reader()
    for offset in (None, 0, 9, 11):
        assert not tail.follow(reader, 0, lambda offset=offset: offset)
    assert not tail.follow(reader, 1, lambda: 10)
    assert tail.followed_by(reader) == set()
    assert tail.follow(reader, 0, lambda: 10)
    assert tail.followed_by(reader) == {0}
    tail.hand_out(0, records_at(10, 11), 12)
    assert (reader.taken, reader.alone_from) == ([10, 11], {})
    assert tail.follow(Reader(), 0, lambda: 12)


def test_who_has_no_room_goes_on_alone_with_the_first_record_that_it_did_not_take() -> None:
    tail, slow, quick = tail_at(10), Reader(room=2), Reader()
    for reader in (slow, quick):
        tail.follow(reader, 0, lambda: 10)
    tail.hand_out(0, records_at(10, 11), 12)
    tail.hand_out(0, records_at(12), 13)
    tail.hand_out(0, records_at(13), 14)
    assert (slow.taken, slow.alone_from, tail.followed_by(slow)) == ([10, 11], {0: 12}, set())
    assert (quick.taken, quick.alone_from, tail.followed_by(quick)) == ([10, 11, 12, 13], {}, {0})


@pytest.mark.parametrize(("records", "position", "first"), [((1, 2), 3, 1), ((3,), 12, 3), ((), 4, 4), ((), 0, 0)])
def test_where_a_log_goes_back_all_go_back_with_it(records: tuple[int, ...], position: int, first: int) -> None:
    tail, reader = tail_at(10), Reader()
    tail.follow(reader, 0, lambda: 10)
    tail.hand_out(0, records_at(*records), position)
    assert (reader.taken, reader.alone_from, tail.followed_by(reader)) == ([], {0: first}, set())
    assert tail.follow(reader, 0, lambda: position)


def test_marks_without_records_are_passed_together() -> None:
    tail, reader = tail_at(10), Reader()
    tail.follow(reader, 0, lambda: 10)
    tail.hand_out(0, [], 11)
    tail.hand_out(0, records_at(12, 14), 15)
    assert (reader.taken, reader.alone_from, tail.followed_by(reader)) == ([12, 14], {}, {0})


def test_who_left_is_handed_nothing_more() -> None:
    tail, reader = tail_at(10), Reader()
    tail.follow(reader, 0, lambda: 10)
    tail.leave(reader, {0, 1})
    tail.hand_out(0, records_at(10), 11)
    assert (reader.taken, reader.alone_from, tail.followed_by(reader)) == ([], {}, set())


def publish(log: KafkaLog, topic: str, values: range) -> None:
    for number in values:
        log.publish(topic, KafkaMessage(f"model-{number % 7}".encode(), str(number).encode()))


def followers(log: KafkaLog, topic: str, count: int) -> list[Member]:
    """Join groups, and wait until the tail serves all of them."""
    members = [log.consumer(topic, f"group-{number}", start="earliest") for number in range(count)]
    assert all(isinstance(member, Member) for member in members)
    following(log, topic, members)  # type: ignore[arg-type]
    return members  # type: ignore[return-value]


def following(log: KafkaLog, topic: str, members: list[Member]) -> None:
    tail = log._tails[topic]
    until(lambda: all(len(tail.followed_by(member)) == PARTITIONS for member in members))


def read(member: Member, count: int) -> list[Record]:
    """Return the next records, which must be so many, no more and no fewer."""
    records: list[Record] = []
    until(lambda: len(records.__iadd__(member.poll(0.2))) >= count)
    assert len(records) + len(member.poll(0.3)) == count
    return records


def numbers(records: list[Record]) -> list[int]:
    assert all(a.offset < b.offset for a, b in itertools.pairwise(records) if a.partition == b.partition)
    return sorted(int(record.value or b"") for record in records)


@pytest.mark.services
def test_groups_have_every_record_once_and_only_the_tail_fetches(log: KafkaLog, topic: str) -> None:
    publish(log, topic, range(20))
    asked: list[Any] = []
    connect = log._consumer

    def connecting(**settings: Any) -> Any:
        client = connect(**settings)
        send = client._fetcher._create_fetch_requests

        def sending() -> Any:
            requests = send()
            asked.extend(settings.get("group_id", "tail") for _ in requests)
            return requests

        client._fetcher._create_fetch_requests = sending
        return client

    log._consumer = connecting  # type: ignore[method-assign]
    members = followers(log, topic, 3)
    assert [numbers(read(member, 20)) for member in members] == [[*range(20)]] * 3
    time.sleep(2 * kafka_client.CONSUMER["fetch_max_wait_ms"] / 1000)  # the last that each asked for itself has ended
    asked.clear()
    publish(log, topic, range(20, 60))
    assert [numbers(read(member, 40)) for member in members] == [[*range(20, 60)]] * 3
    assert set(asked) == {"tail"}
    ends = {record.partition: record.offset + 1 for record in log.backlog(topic, "group-0")}
    for member in members:
        member.commit(ends)
    until(lambda: not any(log.backlog(topic, f"group-{number}") for number in range(3)))


@pytest.mark.services
def test_a_group_that_falls_behind_has_all_it_missed_and_keeps_nobody_waiting(log: KafkaLog, topic: str) -> None:
    slow, quick = followers(log, topic, 2)
    count = PARTITIONS * READ_AHEAD * 2
    publisher = threading.Thread(target=publish, args=(log, topic, range(count)), daemon=True)
    publisher.start()
    assert numbers(read(quick, count)) == [*range(count)]
    publisher.join()
    until(lambda: log._tails[topic].followed_by(slow) < frozenset(range(PARTITIONS)))
    assert numbers(read(slow, count)) == [*range(count)]
    following(log, topic, [slow, quick])
    publish(log, topic, range(5))
    assert [numbers(read(member, 5)) for member in (slow, quick)] == [[*range(5)]] * 2


@pytest.mark.services
def test_a_tail_that_dies_costs_nothing_and_comes_back(log: KafkaLog, topic: str) -> None:
    clients: list[Any] = []
    connect = log._consumer

    def connecting(**settings: Any) -> Any:
        client = connect(**settings)
        if "group_id" not in settings:
            clients.append(client)
        return client

    log._consumer = connecting  # type: ignore[method-assign]
    members = followers(log, topic, 2)
    for round_number in range(3):
        publish(log, topic, range(10))
        clients[-1].close()  # under its feet: its next poll raises
        publish(log, topic, range(10, 20))
        assert [numbers(read(member, 20)) for member in members] == [[*range(20)]] * 2
        until(lambda expected=round_number + 2: len(clients) == expected)
        following(log, topic, members)


@pytest.mark.services
def test_a_tail_of_a_topic_that_is_not_there_yet_serves_once_it_is(log: KafkaLog) -> None:
    topic = f"test.{uuid.uuid4().hex}"
    members = [log.consumer(topic, f"group-{number}", start="earliest") for number in range(2)]
    time.sleep(1.0)
    log.ensure_topics([Topic(topic, partitions=PARTITIONS)])
    following(log, topic, members)  # type: ignore[arg-type]


@pytest.mark.services
@pytest.mark.parametrize("records", [10, 110])  # fewer than were there before, and more
def test_a_topic_that_is_made_anew_is_read_from_its_start(
    server: KafkaServer, log: KafkaLog, topic: str, records: int
) -> None:
    members = followers(log, topic, 2)
    publish(log, topic, range(50))
    for member in members:
        read(member, 50)
    with closing(KafkaAdminClient(bootstrap_servers=server.bootstrap_servers)) as admin:
        admin.delete_topics([topic])
        until(lambda: topic not in admin.list_topics())
    log.ensure_topics([Topic(topic, partitions=PARTITIONS)])
    expected = range(100, 100 + records)
    publish(log, topic, expected)
    for member in members:
        found: set[int] = set()
        until(
            lambda member=member, found=found: found.update(map(value, member.poll(0.2))) or found >= {*range(100, 110)}
        )


@pytest.mark.services
def test_what_a_transaction_aborted_is_not_handed_over_and_its_marks_lose_nobody(
    server: KafkaServer, log: KafkaLog, topic: str
) -> None:
    members = followers(log, topic, 2)
    with closing(KafkaProducer(bootstrap_servers=server.bootstrap_servers, transactional_id=topic)) as producer:
        producer.init_transactions()
        for number, end in enumerate((producer.commit_transaction, producer.abort_transaction) * 3):
            producer.begin_transaction()
            for partition in range(PARTITIONS):
                producer.send(topic, value=str(number).encode(), partition=partition)
            producer.flush()
            end()
    publish(log, topic, range(10, 20))
    expected = sorted([0, 2, 4] * PARTITIONS + [*range(10, 20)])
    assert [numbers(read(member, len(expected))) for member in members] == [expected] * 2
    following(log, topic, members)


@pytest.mark.services
def test_members_that_come_and_go_lose_nothing_and_keep_the_order(log: KafkaLog, topic: str) -> None:
    groups = ("one", "two")
    seen: dict[str, list[tuple[int, int, int]]] = {group: [] for group in groups}
    lock, ending = threading.Lock(), threading.Event()

    def member(group: str, lives: Callable[[], bool]) -> None:
        with closing(log.consumer(topic, group, start="earliest")) as consumer:
            while lives():
                for record in consumer.poll(0.2):
                    with lock:
                        seen[group].append((record.partition, record.offset, value(record)))
                    consumer.commit({record.partition: record.offset + 1})

    def short_lived(group: str) -> None:
        while not ending.is_set():
            until_then = time.monotonic() + 3
            member(group, lambda: time.monotonic() < until_then)  # noqa: B023 (called within the round)

    threads = [threading.Thread(target=member, args=(group, lambda: not ending.is_set())) for group in groups]
    threads += [threading.Thread(target=short_lived, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    try:
        count = 0
        stop = time.monotonic() + 20
        while time.monotonic() < stop:
            publish(log, topic, range(count, count + 10))
            count += 10
        until(lambda: all({number for *_, number in seen[group]} >= {*range(count)} for group in groups))
        until(lambda: not any(log.backlog(topic, group) for group in groups))
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    for group in groups:
        assert_in_order(seen[group])


def assert_in_order(seen: list[tuple[int, int, int]]) -> None:
    for partition in range(PARTITIONS):
        first_seen = list(dict.fromkeys(offset for number, offset, _ in seen if number == partition))
        assert first_seen == list(range(len(first_seen))), "a record was passed over"


def value(record: Record) -> int:
    return int(record.value or b"")


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s"
        time.sleep(0.02)
