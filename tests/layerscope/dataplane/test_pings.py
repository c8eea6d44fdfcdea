"""PingSources: at once, each period, until taken."""

from __future__ import annotations

import asyncio

import pytest

from layerscope.dataplane.resources import Ping
from tests.layerscope.dataplane.scripted import Reply, Scripted, new_log, running, system, until


@pytest.mark.slow
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
            async with asyncio.timeout(300):
                await plane.idle()
            assert len(subscriber.finished) == 1

    asyncio.run(run())
