"""Order, back-pressure, commits, restarts, drains and rebalances of one subscription."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from layerscope.dataplane.dispatch import WINDOW
from layerscope.dataplane.filters import parse_all
from layerscope.dataplane.plane import DataPlane
from layerscope.dataplane.resources import DeliveryPolicy
from layerscope.dataplane.subscribers import client_at
from layerscope.events.inbox import Inbox
from layerscope.events.log import Consumer, Revoked, Start
from layerscope.events.memory import MemoryLog
from tests.layerscope.dataplane.scripted import (
    EVENTS,
    KEYS,
    LETTERS,
    POLICY,
    Reply,
    Scripted,
    an_event,
    deliver,
    keyed,
    new_log,
    publish,
    running,
    system,
    trigger,
    uncommitted,
    until,
    with_topics,
)


def test_ordered_is_one_at_a_time_in_each_partition_and_in_order() -> None:
    log, subscriber = new_log(), Scripted((Reply(204, seconds=0.05),))
    for number in range(8):
        log.publish(*keyed(f"a{number}", 0))
        log.publish(*keyed(f"b{number}", 1))
    asyncio.run(deliver(subscriber, trigger(ordered=True), log))
    assert [i for i in subscriber.ids() if i[0] == "a"] == [f"a{n}" for n in range(8)]
    assert [i for i in subscriber.ids() if i[0] == "b"] == [f"b{n}" for n in range(8)]
    assert subscriber.most_under_way == 2


def test_ordered_retries_hold_up_their_own_partition_only() -> None:
    log = new_log()
    subscriber = Scripted(by_id={"slow": (Reply(503), Reply(503), Reply(204))})
    log.publish(*keyed("slow", 0))
    log.publish(*keyed("behind", 0))
    for number in range(5):
        log.publish(*keyed(f"b{number}", 1))
    policy = DeliveryPolicy(3, "linear", 0.1, 2.0, LETTERS)
    asyncio.run(deliver(subscriber, trigger(policy, ordered=True), log))
    first_partition = [i for i in subscriber.ids() if i in ("slow", "behind")]
    assert first_partition == ["slow", "slow", "slow", "behind"]
    assert subscriber.ids().index("b4") < subscriber.ids().index("behind")


def test_unordered_lets_nobody_wait_for_a_retry() -> None:
    log = new_log()
    subscriber = Scripted(by_id={"slow": (Reply(503), Reply(204))})
    for identifier in ("slow", "x", "y", "z"):
        log.publish(*keyed(identifier, 0))
    asyncio.run(deliver(subscriber, trigger(DeliveryPolicy(1, "linear", 0.1, 2.0, LETTERS)), log))
    assert subscriber.finished[-1] == "slow"
    assert sorted(subscriber.finished) == ["slow", "slow", "x", "y", "z"]


@pytest.mark.slow
def test_unordered_polls_fifty_more_while_fewer_than_fifty_are_under_way() -> None:
    log, subscription = new_log(), trigger(replace(POLICY, timeout_seconds=60.0))
    publish(log, *(an_event(str(number), partitionkey=KEYS[number % 2]) for number in range(160)))
    subscriber = Scripted()

    async def run() -> None:
        subscriber.permits = asyncio.Semaphore(0)
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            await until(lambda: subscriber.under_way == WINDOW)
            await asyncio.sleep(0.1)
            assert subscriber.under_way == WINDOW
            subscriber.permits.release()
            await until(lambda: subscriber.under_way == 2 * WINDOW - 1)
            for _ in range(160):
                subscriber.permits.release()
            async with asyncio.timeout(300):
                await plane.idle()

    asyncio.run(run())
    assert subscriber.most_under_way == 2 * WINDOW - 1
    assert sorted(map(int, subscriber.ids())) == list(range(160))
    assert uncommitted(log, subscription) == []


def test_a_long_ordered_backlog_is_held_back_and_delivered_whole() -> None:
    log, subscriber = new_log(), Scripted()
    publish(log, *(an_event(str(number), partitionkey=KEYS[0]) for number in range(120)))
    subscription = trigger(ordered=True)
    asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.ids() == [str(number) for number in range(120)]
    assert uncommitted(log, subscription) == []


def test_a_slow_event_holds_back_the_commit_until_it_ends() -> None:
    log, subscription = new_log(), trigger()
    subscriber = Scripted(by_id={"1": (Reply(204, seconds=0.4),)})
    for number in range(5):
        log.publish(*keyed(str(number), 0))

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            await until(lambda: len(subscriber.finished) == 4)
            await asyncio.sleep(0.05)
            assert [record.offset for record in uncommitted(log, subscription)] == [1, 2, 3, 4]
            async with asyncio.timeout(300):
                await plane.idle()
            assert uncommitted(log, subscription) == []

    asyncio.run(run())


def test_what_was_not_committed_is_delivered_again_after_a_crash_and_nothing_else() -> None:
    log, subscription = new_log(), trigger()
    first = Scripted(by_id={"1": (Reply(204, seconds=5),)})
    for number in range(4):
        log.publish(*keyed(str(number), 0))

    async def crash() -> None:
        async with first.listening() as url, client_at(url) as client:
            work = asyncio.create_task(DataPlane(system(subscription), log, {"s": client}).run())
            await until(lambda: len(first.finished) == 3)
            await asyncio.sleep(0.02)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    asyncio.run(crash())
    second = Scripted()
    asyncio.run(deliver(second, subscription, log))
    assert sorted(second.ids()) == ["1", "2", "3"]


def test_a_stop_lets_calls_under_way_end_commits_them_and_begins_no_other() -> None:
    log, subscription = new_log(), trigger(ordered=True)
    subscriber = Scripted((Reply(204, seconds=0.2),))
    for number in range(3):
        log.publish(*keyed(str(number), 0))

    async def run() -> float:
        async with subscriber.listening() as url, client_at(url) as client:
            plane = DataPlane(system(subscription), log, {"s": client})
            work = asyncio.create_task(plane.run())
            await until(lambda: subscriber.calls)
            began = time.monotonic()
            await plane.stop(5)
            await work
            return time.monotonic() - began

    assert asyncio.run(run()) < 4.0
    assert subscriber.finished == ["0"]
    assert [record.offset for record in uncommitted(log, subscription)] == [1, 2]


def test_a_stop_gives_up_what_outlasts_the_grace_and_leaves_it_uncommitted() -> None:
    log, subscription = new_log(), trigger()
    subscriber = Scripted((Reply(204, seconds=5),))
    publish(log, an_event())

    async def run() -> float:
        async with subscriber.listening() as url, client_at(url) as client:
            plane = DataPlane(system(subscription), log, {"s": client})
            work = asyncio.create_task(plane.run())
            await until(lambda: subscriber.calls)
            began = time.monotonic()
            await plane.stop(0.1)
            await work
            return time.monotonic() - began

    assert asyncio.run(run()) < 4.0
    assert len(uncommitted(log, subscription)) == 1


@pytest.mark.slow
def test_a_second_data_plane_takes_over_partitions_and_nothing_is_lost() -> None:
    log, subscription = new_log(), trigger()
    subscriber = Scripted((Reply(204, seconds=0.05),))
    sent = [str(number) for number in range(60)]

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as first:
            publish(log, *(an_event(i, partitionkey=KEYS[int(i) % 2]) for i in sent[:40]))
            await until(lambda: subscriber.calls)
            async with running(log, system(subscription), url) as second:
                publish(log, *(an_event(i, partitionkey=KEYS[int(i) % 2]) for i in sent[40:]))
                async with asyncio.timeout(300):
                    await asyncio.gather(first.idle(), second.idle())
                statuses = [*await first.status(), *await second.status()]
                assert all(status.delivered > 0 for status in statuses)

    asyncio.run(run())
    assert set(subscriber.ids()) == set(sent)
    assert uncommitted(log, subscription) == []


@pytest.mark.slow
def test_what_was_under_way_when_its_partition_was_taken_is_not_committed_by_its_former_reader() -> None:
    log, subscription = new_log(), trigger()
    subscriber = Scripted(by_id={"1": (Reply(204, seconds=0.3), Reply(204, seconds=2.0))})
    log.publish(*keyed("1", 1))

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url):
            await until(lambda: subscriber.calls)
            # Another member takes the partition, and gives it back.
            log.consumer(EVENTS, subscription.group, start="earliest").close()
            await until(lambda: len(subscriber.calls) == 2)
            await until(lambda: subscriber.finished == ["1"])
            await asyncio.sleep(0.05)
            # the first call ended, but the event belongs to the second reading, which has not
            assert len(uncommitted(log, subscription)) == 1

    asyncio.run(run())


def test_events_that_no_filter_takes_are_committed_without_a_call() -> None:
    log, subscriber = new_log(), Scripted()
    subscription = replace(trigger(), filter=parse_all([{"exact": {"type": "other"}}]))
    publish(log, *(an_event(str(n)) for n in range(5)))
    asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.calls == []
    assert uncommitted(log, subscription) == []


def test_an_event_that_breaks_its_filter_is_discarded_for_that_trigger() -> None:
    log, subscriber = new_log(), Scripted()
    subscription = replace(trigger(), filter=parse_all([{"prefix": {"subject": "d/"}}]))
    publish(log, an_event("bare").with_attributes(subject=None), an_event("whole"))
    plane = asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.ids() == ["whole"]
    assert asyncio.run(plane.status())[0].discarded == 1
    assert uncommitted(log, subscription) == []


class RecordingLog(MemoryLog):
    """A log that remembers its consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.consumers: list[Consumer] = []

    def consumer(self, topic: str, group: str, *, start: Start, revoked: Revoked | None = None) -> Consumer:
        joined = super().consumer(topic, group, start=start, revoked=revoked)
        self.consumers.append(joined)
        return joined


@pytest.mark.slow
def test_a_consumer_that_fails_is_replaced_and_what_it_had_not_finished_is_delivered_again() -> None:
    log, subscription, subscriber = with_topics(RecordingLog()), trigger(ordered=True), Scripted()
    subscriber.by_id["2"] = (Reply(204, seconds=0.3), Reply(204))

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            log.publish(*keyed("1", 0))
            async with asyncio.timeout(300):
                await plane.idle()
            log.publish(*keyed("2", 0))
            await until(lambda: len(subscriber.calls) == 2)
            failed = log.consumers[0]
            assert isinstance(failed, Inbox)
            failed.shut(failed=True)
            log.publish(*keyed("3", 0))
            await until(lambda: "3" in subscriber.finished)

    asyncio.run(run())
    assert subscriber.ids() == ["1", "2", "2", "3"]
    assert len(log.consumers) == 2


def test_a_topic_that_is_made_later_is_waited_for() -> None:
    log, subscription, subscriber = MemoryLog(), trigger(), Scripted()

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            assert not plane.ready
            with_topics(log)
            publish(log, an_event())
            await until(lambda: subscriber.finished)

    asyncio.run(run())
