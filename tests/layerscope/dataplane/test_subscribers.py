"""How many calls a Service is given, and functions in this process."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from layerscope.dataplane.filters import parse_all
from layerscope.dataplane.plane import DataPlane
from layerscope.dataplane.resources import DeliveryPolicy, System
from layerscope.dataplane.subscribers import Subscribers, client_of
from tests.layerscope.dataplane.scripted import (
    EVENTS,
    LETTERS,
    Reply,
    Scripted,
    an_event,
    contents,
    new_log,
    publish,
    running,
    service,
    system,
    trigger,
    until,
)


def test_a_service_is_given_no_more_calls_than_it_has_places() -> None:
    log, subscriber = new_log(), Scripted((Reply(204, seconds=0.02),))
    publish(log, *(an_event(str(number)) for number in range(12)))

    async def run() -> None:
        declared = replace(system(trigger()), services={"s": service(concurrency=3)})
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(300):
            await plane.idle()

    asyncio.run(run())
    assert subscriber.most_under_way == 3


@pytest.mark.slow
def test_waiting_for_a_place_is_no_part_of_the_timeout() -> None:
    log, subscriber = new_log(), Scripted((Reply(204, seconds=0.1),))
    publish(log, *(an_event(str(number)) for number in range(6)))

    async def run() -> None:
        declared = replace(
            system(trigger(DeliveryPolicy(0, "linear", 0.0, 0.4, LETTERS))), services={"s": service(concurrency=1)}
        )
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(300):
            await plane.idle()

    asyncio.run(run())
    assert contents(log, LETTERS) == []
    assert len(subscriber.calls) == 6


@pytest.mark.slow
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
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(300):
            publish(log, *(an_event(f"r{n}", lane="replay") for n in range(4)))
            await plane.idle()
            assert subscriber.most_under_way == 1
            publish(log, *(an_event(f"l{n}") for n in range(8)), *(an_event(f"s{n}", lane="replay") for n in range(4)))
            await plane.idle()
            assert subscriber.most_under_way == live_at_once

    asyncio.run(run())
    assert len(subscriber.ids()) == len(set(subscriber.ids())) == 16


def test_a_host_of_several_functions_is_called_at_the_path_of_one_and_a_dead_letter_names_it() -> None:
    log, subscriber = new_log(), Scripted((Reply(422),))
    publish(log, an_event())

    async def run() -> None:
        declared = replace(system(replace(trigger(), path="/g")), services={"s": service("s", "f", "g")})
        async with subscriber.listening() as url, running(log, declared, url) as plane, asyncio.timeout(300):
            await plane.idle()

    asyncio.run(run())
    assert [call.path for call in subscriber.calls] == ["/g"]
    assert [one.extensions["knativeerrordest"] for one in contents(log, LETTERS)] == [
        "http://s.demo.svc.cluster.local/g"
    ]


def test_a_host_without_a_process_is_served_by_those_of_its_functions() -> None:
    log, f, g = new_log(), Scripted(), Scripted()
    publish(log, an_event())
    services = {"f": service("f", "f"), "g": service("g", "g"), "both": service("both", "f", "g")}

    async def run() -> None:
        calls = (replace(trigger(name=name), service="both", path=f"/{name}") for name in ("f", "g"))
        declared = replace(system(*calls), services=services)
        async with f.listening() as at_f, g.listening() as at_g, running(log, declared, at_f, at_g) as plane:
            await plane.idle()

    asyncio.run(run())
    assert [call.path for call in f.calls] == ["/f"]
    assert [call.path for call in g.calls] == ["/g"]


def test_a_path_that_a_host_does_not_serve_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="there is no client for both"):
        Subscribers({"f": service("f", "f"), "both": service("both", "f")}, {"f": client_of(None)}).at("both", "/h")


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
            async with asyncio.timeout(300):
                await plane.idle()
            await until(lambda: len(ended) == 2)
            await plane.stop()
            await work
            assert (await client.post("/")).status_code == 500

    asyncio.run(run())
    assert ended == ["call"] * 3


def test_a_service_that_nothing_can_call_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="there is no client for s"):
        DataPlane(system(trigger()), new_log(), {})
    with pytest.raises(ValueError, match="no Service is named unknown"):
        Subscribers({"s": service()}, {"unknown": client_of(None)})
