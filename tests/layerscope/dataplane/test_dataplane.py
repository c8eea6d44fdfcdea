"""The data plane as a whole: idleness, status and metrics, latency, and its process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

import httpx

from layerscope.dataplane.application import DataPlaneProcess, exposition
from layerscope.dataplane.plane import DataPlane, SubscriptionStatus
from layerscope.dataplane.subscribers import client_at, client_of
from layerscope.events.kafka import KafkaMessage
from layerscope.events.log import Consumer, Revoked, Start
from layerscope.events.memory import MemoryLog
from tests.layerscope.dataplane.scripted import (
    EVENTS,
    POLICY,
    Reply,
    Scripted,
    an_event,
    contents,
    new_log,
    publish,
    running,
    source,
    system,
    trigger,
    uncommitted,
    until,
    with_topics,
)


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
            async with asyncio.timeout(300):
                assert await plane.idle()
            assert {event.id for event in contents(log, EVENTS)} == {str(n) for n in range(1, 11)}
            await plane.stop()
            await work

    asyncio.run(run())


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


def test_status_counts_what_happened_and_metrics_say_the_same() -> None:
    log, subscriber = new_log(), Scripted((Reply(422),), by_id={"2": (Reply(503), Reply(204))})
    publish(log, an_event("1"), an_event("2"), an_event("3"))
    log.publish(EVENTS, KafkaMessage(b"k", b"no event"))

    async def run() -> tuple[SubscriptionStatus, httpx.Response, httpx.Response, httpx.Response]:
        async with subscriber.listening() as url, running(log, system(trigger()), url) as plane:
            async with asyncio.timeout(300):
                await plane.idle()
            (status,) = await plane.status()
            async with client_of(DataPlaneProcess(plane)) as client:
                metrics, listed = await client.get("/metrics"), await client.get("/status")
                return status, metrics, listed, await client.get("/health/readiness")

    status, metrics, listed, ready = asyncio.run(run())
    assert status == SubscriptionStatus("s", EVENTS, "s", 0, 0, 4, 1, 0, 2, 0, 1, 0)
    assert ready.status_code == 200
    assert listed.json()[0]["dead_letters"] == 2
    assert 'layerscope_dataplane_attempts_total{subscription="s"} 4.0' in metrics.text
    assert 'layerscope_dataplane_dead_letters_total{subscription="s"} 2.0' in metrics.text
    assert 'layerscope_dataplane_lag{subscription="s"} 0.0' in metrics.text


def test_status_says_what_was_not_taken_while_it_waits_for_its_next_attempt() -> None:
    full = Reply(503, body=b"its disk is full\x07")
    log, subscriber = new_log(), Scripted((full, full, Reply(204)))

    async def run() -> tuple[SubscriptionStatus, SubscriptionStatus]:
        async with (
            subscriber.listening() as url,
            running(log, system(trigger(replace(POLICY, delay_seconds=0.5))), url) as plane,
        ):
            publish(log, an_event("1"))
            async with asyncio.timeout(300):
                while not (meanwhile := (await plane.status())[0]).offered_again:
                    await asyncio.sleep(0.01)
                await plane.idle()
            return meanwhile, (await plane.status())[0]

    meanwhile, afterwards = asyncio.run(run())
    (one,) = meanwhile.offered_again
    assert (one.subject, one.reason) == ("d/m/1", "answered 503: its disk is full\ufffd")
    assert (afterwards.offered_again, afterwards.delivered) == ((), 1)


def test_lag_is_left_out_while_the_log_does_not_answer() -> None:
    status = SubscriptionStatus("s", EVENTS, "s", None, 0, 0, 0, 0, 0, 0, 0, 0)
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
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(300):
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

    async with asyncio.timeout(300):
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
    assert fault.subgroup(RuntimeError) is not None
