"""The data plane as a whole: order, places, commits, restarts, drains, pings, and its process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from events.inbox import Inbox
from events.kafka import KafkaMessage, to_record
from events.log import Consumer, Revoked, Start
from events.memory import MemoryLog
from layerscope.dataplane import DataPlane, SubscriptionStatus
from layerscope.dataplane_app import DataPlaneProcess, exposition
from layerscope.dispatch import WINDOW
from layerscope.filters import parse_all
from layerscope.manifests import DeliveryPolicy, Ping, System
from layerscope.progress import Progress
from layerscope.subscribers import client_at, client_of, subscribers
from tests.layerscope.scripted import (
    EVENTS,
    LETTERS,
    POLICY,
    Reply,
    Scripted,
    an_event,
    contents,
    deliver,
    new_log,
    publish,
    running,
    service,
    source,
    system,
    trigger,
    uncommitted,
    with_topics,
)


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def keyed(identifier: str, partition: int) -> tuple[str, KafkaMessage]:
    """Return where an event goes, and its message, for one of the two partitions."""
    return EVENTS, to_record(an_event(identifier, partitionkey=KEYS[partition]))


def keys_of_partitions() -> dict[int, str]:
    log = new_log()
    for number in range(20):
        log.publish(EVENTS, KafkaMessage(str(number).encode(), b"x"))
    return {record.partition: (record.key or b"").decode() for record in log.backlog(EVENTS, "nobody")}


KEYS = keys_of_partitions()


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
            async with asyncio.timeout(30):
                await plane.idle()

    asyncio.run(run())
    assert subscriber.most_under_way == 2 * WINDOW - 1
    assert sorted(map(int, subscriber.ids())) == list(range(160))
    assert uncommitted(log, subscription) == []


def test_a_long_ordered_backlog_is_held_back_and_delivered_whole() -> None:
    log, subscriber = new_log(), Scripted()
    publish(log, *(an_event(str(number), partitionkey=KEYS[0]) for number in range(300)))
    subscription = trigger(ordered=True)
    asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.ids() == [str(number) for number in range(300)]
    assert uncommitted(log, subscription) == []


def test_a_service_is_given_no_more_calls_than_it_has_places() -> None:
    log, subscriber = new_log(), Scripted((Reply(204, seconds=0.02),))
    publish(log, *(an_event(str(number)) for number in range(12)))

    async def run() -> None:
        declared = replace(system(trigger()), services={"s": service(concurrency=3)})
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(30):
            await plane.idle()

    asyncio.run(run())
    assert subscriber.most_under_way == 3


def test_waiting_for_a_place_is_no_part_of_the_timeout() -> None:
    log, subscriber = new_log(), Scripted((Reply(204, seconds=0.1),))
    publish(log, *(an_event(str(number)) for number in range(6)))

    async def run() -> None:
        declared = replace(
            system(trigger(DeliveryPolicy(0, "linear", 0.0, 0.4, LETTERS))), services={"s": service(concurrency=1)}
        )
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(30):
            await plane.idle()

    asyncio.run(run())
    assert contents(log, LETTERS) == []
    assert len(subscriber.calls) == 6


@pytest.mark.parametrize(("places", "live_at_once"), [(4, 4), (1, 1)])
def test_a_replay_service_without_a_process_takes_one_place_in_that_of_its_function(
    places: int, live_at_once: int
) -> None:
    log, subscriber = new_log(), Scripted((Reply(204, seconds=0.1),))
    live = replace(trigger(), filter=parse_all([{"not": {"exact": {"lane": "replay"}}}]))
    replayed = replace(trigger(name="s-replay"), filter=parse_all([{"exact": {"lane": "replay"}}]))
    services = {"s": service(concurrency=places), "s-replay": service("s-replay", concurrency=1)}

    async def run() -> None:
        declared = System({EVENTS: 2, LETTERS: 1}, services, (live, replayed), (), ())
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(30):
            publish(log, *(an_event(f"r{n}", lane="replay") for n in range(4)))
            await plane.idle()
            assert subscriber.most_under_way == 1
            publish(log, *(an_event(f"l{n}") for n in range(8)), *(an_event(f"s{n}", lane="replay") for n in range(4)))
            await plane.idle()
            assert subscriber.most_under_way == live_at_once

    asyncio.run(run())
    assert len(subscriber.ids()) == len(set(subscriber.ids())) == 16


def test_progress_commits_the_contiguous_prefix_only() -> None:
    progress = Progress()
    for offset in (3, 4, 7, 8):  # with a gap, as a log may have
        progress.receive(offset)
    assert progress.settle(4) is None
    assert progress.settle(8) is None
    assert progress.settle(3) == 5
    assert progress.open == 2
    assert progress.settle(7) == 9
    assert progress.open == 0


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
            async with asyncio.timeout(30):
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


def test_an_idle_data_plane_stops_at_once() -> None:
    async def run() -> float:
        async with Scripted().listening() as url, client_at(url) as client:
            plane = DataPlane(system(trigger()), new_log(), {"s": client})
            work = asyncio.create_task(plane.run())
            await until(lambda: plane.ready)
            began = time.monotonic()
            await plane.stop()
            await work
            return time.monotonic() - began

    assert asyncio.run(run()) < 10.0  # a poll lasts thirty seconds


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
                async with asyncio.timeout(30):
                    await asyncio.gather(first.idle(), second.idle())
                statuses = [*await first.status(), *await second.status()]
                assert all(status.delivered > 0 for status in statuses)

    asyncio.run(run())
    assert set(subscriber.ids()) == set(sent)
    assert uncommitted(log, subscription) == []


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
    publish(log, replace(an_event("bare"), subject=""), an_event("whole"))
    plane = asyncio.run(deliver(subscriber, subscription, log))
    assert subscriber.ids() == ["whole"]
    assert asyncio.run(plane.status())[0].discarded == 1
    assert uncommitted(log, subscription) == []


def test_idle_waits_for_whole_chains_of_events() -> None:
    log = new_log()

    async def app(scope: dict[str, object], receive: object, send: Callable[..., AsyncIterator[None]]) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}  # type: ignore[attr-defined]
        number = int(headers["ce-id"])
        await asyncio.sleep(0.02)
        answer = [
            (b"ce-specversion", b"1.0"),
            (b"ce-source", b"/s"),
            (b"ce-type", b"t"),
            (b"ce-id", str(number + 1).encode()),
            (b"ce-partitionkey", b"k"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": answer if number < 10 else []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[misc]

    async def run() -> None:
        async with client_of(app) as client:
            plane = DataPlane(system(trigger()), log, {"s": client})
            work = asyncio.create_task(plane.run())
            publish(log, an_event("1"))
            async with asyncio.timeout(30):
                assert await plane.idle()
            assert {event.id for event in contents(log, EVENTS)} == {str(n) for n in range(1, 11)}
            await plane.stop()
            await work

    asyncio.run(run())


def test_a_function_in_this_process_goes_on_after_its_caller_gave_up_and_a_bug_in_it_is_a_500() -> None:
    ended: list[str] = []

    async def app(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(0.1)
        ended.append("call")
        raise RuntimeError("a bug")

    async def run() -> None:
        log = new_log()
        publish(log, an_event())
        async with client_of(app) as client:
            policy = DeliveryPolicy(1, "linear", 0.15, 0.05, LETTERS)
            plane = DataPlane(system(trigger(policy)), log, {"s": client})
            work = asyncio.create_task(plane.run())
            async with asyncio.timeout(30):
                await plane.idle()
            await until(lambda: len(ended) == 2)
            await plane.stop()
            await work
            assert (await client.post("/")).status_code == 500

    asyncio.run(run())
    assert ended == ["call"] * 3


def test_a_ping_comes_at_once_and_is_repeated_until_taken() -> None:
    subscriber = Scripted((Reply(503),))
    ping = Ping("missing", "demo", 60.0, b"{}", "application/json", "s")

    async def run() -> None:
        async with subscriber.listening() as url, running(new_log(), system(pings=(ping,)), url):
            await until(lambda: subscriber.calls)
            subscriber.script = (Reply(204),)
            await until(lambda: len(subscriber.calls) == 2)
            await asyncio.sleep(0.7)  # longer than the first pause between repetitions

    asyncio.run(run())
    assert len(subscriber.calls) == 2
    event = subscriber.calls[0].event
    assert (event.type, event.subject) == ("dev.knative.sources.ping", "")
    assert event.source == "/apis/v1/namespaces/demo/pingsources/missing"
    assert (event.data, event.datacontenttype) == (b"{}", "application/json")


def test_pings_come_each_period_and_each_is_another_event() -> None:
    subscriber = Scripted()
    ping = Ping("missing", "demo", 0.2, b"{}", "application/json", "s")

    async def run() -> None:
        async with subscriber.listening() as url, running(new_log(), system(pings=(ping,)), url):
            await until(lambda: len(subscriber.calls) >= 3)

    asyncio.run(run())
    assert len(set(subscriber.ids())) == len(subscriber.ids())
    assert all(gap > 0.1 for gap in subscriber.gaps())


def test_idle_waits_for_a_ping_that_is_being_answered() -> None:
    subscriber = Scripted((Reply(204, seconds=0.3),))
    ping = Ping("missing", "demo", 60.0, b"{}", "application/json", "s")

    async def run() -> None:
        async with subscriber.listening() as url, running(new_log(), system(pings=(ping,)), url) as plane:
            await until(lambda: subscriber.calls)
            async with asyncio.timeout(30):
                await plane.idle()
            assert len(subscriber.finished) == 1

    asyncio.run(run())


def test_a_service_that_nothing_can_call_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="there is no client for s"):
        DataPlane(system(trigger()), new_log(), {})
    with pytest.raises(ValueError, match="no Service is named unknown"):
        subscribers({"s": service()}, {"unknown": client_of(None)})


def test_status_counts_what_happened_and_metrics_say_the_same() -> None:
    log, subscriber = new_log(), Scripted((Reply(422),), by_id={"2": (Reply(503), Reply(204))})
    publish(log, an_event("1"), an_event("2"), an_event("3"))
    log.publish(EVENTS, KafkaMessage(b"k", b"no event"))

    async def run() -> tuple[SubscriptionStatus, httpx.Response, httpx.Response, httpx.Response]:
        async with subscriber.listening() as url, running(log, system(trigger()), url) as plane:
            async with asyncio.timeout(30):
                await plane.idle()
            (status,) = await plane.status()
            async with client_of(DataPlaneProcess(plane)) as client:
                metrics, listed = await client.get("/metrics"), await client.get("/status")
                return status, metrics, listed, await client.get("/health/readiness")

    status, metrics, listed, ready = asyncio.run(run())
    assert status == SubscriptionStatus("s", EVENTS, "s", 0, 0, 4, 1, 0, 2, 0, 1)
    assert ready.status_code == 200
    assert listed.json()[0]["dead_letters"] == 2
    assert 'layerscope_dataplane_attempts_total{subscription="s"} 4.0' in metrics.text
    assert 'layerscope_dataplane_dead_letters_total{subscription="s"} 2.0' in metrics.text
    assert 'layerscope_dataplane_lag{subscription="s"} 0.0' in metrics.text


def test_lag_is_left_out_while_the_log_does_not_answer() -> None:
    status = SubscriptionStatus("s", EVENTS, "s", None, 0, 0, 0, 0, 0, 0, 0)
    assert b"layerscope_dataplane_lag{" not in exposition([status])


def test_readiness_waits_until_every_subscription_reads_its_topic() -> None:
    async def run() -> httpx.Response:
        async with client_of(None) as nothing:
            plane = DataPlane(system(trigger()), new_log(), {"s": nothing})
            async with client_of(DataPlaneProcess(plane)) as client:
                assert (await client.get("/health/liveness")).status_code == 200
                return await client.get("/health/readiness")

    assert asyncio.run(run()).status_code == 503


def test_sources_and_triggers_of_one_topic_each_get_every_event() -> None:
    log, subscriber = new_log(), Scripted()
    publish(log, an_event("1"))

    async def run() -> None:
        declared = system(trigger(), source())
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(30):
            await plane.idle()

    asyncio.run(run())
    assert subscriber.ids() == ["1", "1"]


def test_one_event_takes_milliseconds_from_the_log_to_the_function_and_back_into_the_log() -> None:
    log = new_log()
    subscriber = Scripted(
        (
            Reply(
                204,
                (
                    ("ce-specversion", "1.0"),
                    ("ce-source", "/s"),
                    ("ce-type", "t"),
                    ("ce-id", "a"),
                    ("ce-partitionkey", "k"),
                ),
            ),
        )
    )
    subscriber.by_id["a"] = (Reply(204),)
    took: list[float] = []

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(trigger(ordered=True)), url) as plane:
            await until(lambda: plane.ready)
            for number in range(20):
                began = time.monotonic()
                publish(log, an_event(str(number)))
                await until(lambda wanted=2 * number + 2: len(contents(log, EVENTS)) == wanted)  # type: ignore[misc]
                took.append(time.monotonic() - began)

    asyncio.run(run())
    assert sorted(took)[10] < 0.25


class RecordingLog(MemoryLog):
    """A log that remembers its consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.consumers: list[Consumer] = []

    def consumer(self, topic: str, group: str, *, start: Start, revoked: Revoked | None = None) -> Consumer:
        joined = super().consumer(topic, group, start=start, revoked=revoked)
        self.consumers.append(joined)
        return joined


def test_a_consumer_that_fails_is_replaced_and_what_it_had_not_finished_is_delivered_again() -> None:
    log, subscription, subscriber = with_topics(RecordingLog()), trigger(ordered=True), Scripted()
    subscriber.by_id["2"] = (Reply(204, seconds=0.3), Reply(204))

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            log.publish(*keyed("1", 0))
            async with asyncio.timeout(30):
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


async def serve(process: DataPlaneProcess, until_stopped: Callable[[], Awaitable[None]]) -> list[str]:
    """Run a process from the server's start to its end, as an ASGI server does."""
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        if said:
            await until_stopped()
            return {"type": "lifespan.shutdown"}
        return {"type": "lifespan.startup"}

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message["type"])

    async with asyncio.timeout(30):
        await process({"type": "lifespan"}, receive, send)
    return said


def test_the_process_delivers_from_start_to_end_and_drains() -> None:
    log, subscription, subscriber = new_log(), trigger(), Scripted((Reply(204, seconds=0.2),))
    publish(log, an_event())

    async def run() -> list[str]:
        async def called() -> None:
            await until(lambda: subscriber.calls)

        async with subscriber.listening() as url, client_at(url) as client:
            return await serve(DataPlaneProcess(DataPlane(system(subscription), log, {"s": client})), called)

    assert asyncio.run(run()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert subscriber.finished == ["1"]
    assert uncommitted(log, subscription) == []


class BrokenLog(MemoryLog):
    """A log with a bug."""

    def consumer(self, topic: str, group: str, *, start: Start, revoked: Revoked | None = None) -> Consumer:
        raise RuntimeError("a bug")


def test_the_process_ends_and_says_why_when_the_data_plane_does() -> None:
    async def run() -> DataPlaneProcess:
        ended = asyncio.Event()
        async with client_of(None) as nothing:
            process = DataPlaneProcess(DataPlane(system(trigger()), with_topics(BrokenLog()), {"s": nothing}))
            process.ended = ended.set

            async def has_ended() -> None:
                await ended.wait()

            await serve(process, has_ended)
        return process

    fault = asyncio.run(run()).fault
    assert isinstance(fault, ExceptionGroup)
    assert "a bug" in str(fault.exceptions[0])
