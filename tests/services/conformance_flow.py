"""Scenes about many events: order, how many at once, commits, and data planes that stop, die, join and change."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from layerscope.dataplane.resources import Subscription
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import trigger_group
from layerscope.stack.ports import free_ports
from tests.events.library import murmur2
from tests.layerscope.dataplane.scripted import NAMESPACE, Reply, Scripted, until
from tests.services.conformance import PATIENCE_SECONDS, Seen, Stage, event, listening, policy, running, trigger

ROOT: Final = Path(__file__).parents[2]
SLOW: Final = Reply(204, seconds=60.0)
TOPICS: Final = ("process", "raw", "process.dlq")
PROGRAM: Final = (
    "import sys; from pathlib import Path; from layerscope.dataplane.application import main; "
    "from layerscope.events.topics import Topic; main(Path(sys.argv[1]), [Topic(name, 1) for name in sys.argv[2:]])"
)


def keys(partition: int) -> Iterator[str]:
    """Return different partition keys of one of two partitions."""
    return (key for key in map(str, itertools.count()) if (murmur2(key.encode()) & 0x7FFFFFFF) % 2 == partition)


async def ordered(stage: Stage) -> Seen:
    """Two partitions of an ordered Trigger, the first event of one in backoff; and an answer with a kne- header."""
    await stage.topics(ordered=2)
    subscriber = Scripted((Reply(204, seconds=0.02),), by_id={"a0": (Reply(503), Reply(503), Reply(503), Reply(204))})
    wedged = Scripted(by_id={"a0": (Reply(422, (("kne-error-class", "x"),)),)})
    triggers = [trigger(name, "ordered", policy("ordered"), ordered=True) for name in ("ordered", "wedged")]
    asked = {"ordered": subscriber, "wedged": wedged}
    async with listening(**asked) as urls, running(stage.log, urls, *triggers) as plane:
        a, b = ([event(f"{side}{n}", partitionkey=key) for n, key in enumerate(itertools.islice(keys(number), 8))]
                for number, side in enumerate("ab"))  # fmt: skip
        await stage.publish("ordered", a[0], *b, *a[1:])
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(subscriber.calls) >= 19 and len(wedged.calls) >= 16)
        return await stage.collect(plane, triggers, asked)


async def window(stage: Stage) -> Seen:
    """More events than an unordered Trigger offers at once, none of which is answered before all that may are."""
    await stage.topics(window=2)
    subscriber, subscription = Scripted(), trigger("window", "window", policy("window", timeout=60.0))
    subscriber.permits = asyncio.Semaphore(0)
    offsets = {}
    await _publish_many(stage, "window", 160)
    async with listening(window=subscriber) as urls, running(stage.log, urls, subscription) as plane:
        for name, few in (("first", 50), ("then", 99)):
            with contextlib.suppress(TimeoutError):
                await until(lambda at_least=few: subscriber.under_way >= at_least)  # type: ignore[misc]
            await asyncio.sleep(0.5)
            offsets[name] = [subscriber.under_way]
            subscriber.permits.release()
        for _ in range(160):
            subscriber.permits.release()
        seen = await stage.collect(plane, [subscription], {"window": subscriber})
        seen.offsets |= offsets
        return seen


async def crowd(stage: Stage) -> Seen:
    """Three hundred events that take a second each."""
    await stage.topics(crowd=2)
    subscriber = Scripted((Reply(204, seconds=1.0),))
    subscription = trigger("crowd", "crowd", policy("crowd", timeout=60.0))
    await _publish_many(stage, "crowd", 300)
    async with listening(crowd=subscriber) as urls, running(stage.log, urls, subscription) as plane:
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(subscriber.finished) >= 300, 2 * PATIENCE_SECONDS)
        return await stage.collect(plane, [subscription], {"crowd": subscriber})


async def _publish_many(stage: Stage, topic: str, count: int) -> None:
    events = [event(str(number), partitionkey=str(number)) for number in range(count)]
    await asyncio.gather(*(stage.publish(topic, *events[first::8]) for first in range(8)))


async def commits(stage: Stage) -> Seen:
    """One partition, whose second event is retried while all others are taken at once."""
    await stage.topics(commits=1)
    subscriber = Scripted(by_id={"1": (Reply(503), Reply(503), Reply(503), Reply(204))})
    subscription = trigger("commits", "commits", policy("commits", 3, "linear", 1.5))
    async with listening(commits=subscriber) as urls, running(stage.log, urls, subscription) as plane:
        await stage.together()
        await stage.publish("commits", *(event(str(n)) for n in range(6)))
        await until(lambda: len(subscriber.finished) >= 7)
        await asyncio.sleep(1.5)
        held = [record.offset for record in await stage.unfinished(subscription)]
        before = len(subscriber.finished)
        await until(lambda: len(subscriber.finished) >= 9)
        began = time.monotonic()
        await stage.committed(subscription)
        took = time.monotonic() - began
        seen = await stage.collect(plane, [subscription], {"commits": subscriber})
    return replace(seen, offsets={"held": held, "answered meanwhile": [before]}, seconds={"commit": took})


async def joined(stage: Stage) -> Seen:
    """A second data plane that joins the group while eight events are under way, four in each partition."""
    await stage.topics(joined=2)
    slow = (Reply(204, seconds=12.0), Reply(204, seconds=0.1))
    first, second = Scripted(by_id={f"{n}": slow for n in range(8)}), Scripted()
    subscription = trigger("joined", "joined", policy("joined", timeout=60.0))
    one, other = next(keys(0)), next(keys(1))
    with closing(KafkaLog(stage.bootstrap_servers)) as log:
        async with first.listening() as url, second.listening() as other_url:
            urls, others = {"joined": url}, {"joined": other_url}
            async with running(stage.log, urls, subscription) as plane:
                await stage.together()
                await stage.publish("joined", *(event(f"{n}", partitionkey=(one, other)[n % 2]) for n in range(8)))
                await until(lambda: first.under_way >= 8)
                async with running(log, others, subscription) as joiner:
                    at_work = first.under_way
                    late = [event(f"{n}", partitionkey=(one, other)[n % 2]) for n in range(8, 16)]
                    await stage.publish("joined", *late)
                    await until(lambda: len(first.finished) >= 12)
                    seen = await stage.collect(plane, [subscription], {"first": first, "second": second})
                    (status,) = await joiner.status()
                    seen.offsets = {"under way at the join": [at_work], "delivered by the second": [status.delivered]}
                    return seen


async def changed(stage: Stage) -> Seen:
    """A Trigger that is given another subscriber while a call is under way and another event waits for its retry."""
    await stage.topics(changed=1)
    wanted: dict[str, Subscription] = {
        "called": trigger("called", "changed", policy("changed"), ordered=True, filters=[{"exact": {"type": "called"}}]),
        "waiting": trigger("waiting", "changed", policy("changed", 3, "linear", 30.0), filters=[{"exact": {"type": "w"}}]),
    }  # fmt: skip
    old = Scripted((Reply(204, seconds=1.0),), by_id={"w": (Reply(503),)})
    new = Scripted()
    async with old.listening() as url, new.listening() as edited:
        async with running(stage.log, dict.fromkeys(wanted, url), *wanted.values()):
            await stage.together()
            await stage.publish("changed", event("w", "w"))
            await until(lambda: old.finished == ["w"])
            await stage.publish("changed", *(event(f"{n}", "called") for n in range(3)))
            await until(lambda: old.under_way)
            began = time.monotonic()
        took = time.monotonic() - began
        async with running(stage.log, dict.fromkeys(wanted, edited), *wanted.values()) as plane:
            with contextlib.suppress(TimeoutError):
                await until(lambda: len(new.finished) >= 3)
            seen = await stage.collect(plane, list(wanted.values()), {"old": old, "new": new})
    return replace(seen, seconds={"stop": took})


async def process(stage: Stage) -> Seen:
    """The data plane's own process over manifests of its own: killed with calls under way, and at last told to end."""
    await stage.topics(process=1, raw=1)
    subscriber = Scripted(
        by_id={
            "slow": (SLOW, Reply(204)),
            "retried": (Reply(503), SLOW, Reply(503)),
            "patient": (Reply(503), Reply(204)),
            "last": (Reply(204, seconds=1.5),),
        }
    )
    rendered = stage.folder / "rendered.yaml"
    rendered.write_text(yaml.safe_dump_all(manifests()))
    subscription = replace(trigger("process", "process", policy("process")), group=trigger_group(NAMESPACE, "process"))
    async with subscriber.listening() as url, contextlib.AsyncExitStack() as processes:
        await stage.publish("process", *(event(name, "process") for name in ("done", "slow", "retried", "x", "y")))
        first, _ = await _start(stage, rendered, url, processes)
        await until(lambda: subscriber.under_way == 2 and {"x", "y"} <= set(subscriber.finished), PATIENCE_SECONDS)
        held = await _held(stage, subscription, 1)
        killed_after = len(subscriber.calls)
        first.kill()
        await first.wait()

        second, port = await _start(stage, rendered, url, processes)
        await until(lambda: subscriber.asked["retried"] >= 5 and subscriber.asked["y"] >= 2, PATIENCE_SECONDS)
        await stage.publish("process", event("patient", "patient"))
        await stage.publish("raw", event("patient-source"))
        subscriber.by_id["patient-source"] = (Reply(503), Reply(204))
        with contextlib.suppress(TimeoutError):
            await until(lambda: subscriber.asked["patient"] >= 2 and subscriber.asked["patient-source"] >= 2)
        await stage.committed(subscription)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10.0) as client:
            metrics = (await client.get("/metrics")).text
        await stage.publish("process", event("last", "process"))
        await until(lambda: subscriber.asked["last"])
        second.send_signal(signal.SIGTERM)
        status = await second.wait()
        seen = Seen({"process": subscriber}, offsets={"held": held, "killed after": [killed_after], "status": [status]})
        seen.unfinished["process"] = [record.offset for record in await stage.unfinished(subscription)]
        seen.records = await stage.read("process")
        seen.texts["metrics"] = metrics
        return seen


async def _start(
    stage: Stage, rendered: Path, url: str, processes: contextlib.AsyncExitStack
) -> tuple[asyncio.subprocess.Process, int]:
    (port,) = free_ports(1)
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": stage.bootstrap_servers,
        "LAYERSCOPE_FUNCTIONS": json.dumps(dict.fromkeys(("process", "patient", "patient-source"), url)),
        "LAYERSCOPE_DATAPLANE_PORT": str(port),
    }
    with (stage.folder / f"process-{port}.log").open("wb") as said:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(rendered), *TOPICS, cwd=ROOT, env={**os.environ, **settings}, stderr=said
        )

    async def end() -> None:
        if started.returncode is None:
            started.kill()
            await started.wait()

    processes.push_async_callback(end)
    return started, port


async def _held(stage: Stage, subscription: Subscription, first: int, seconds: float = 15.0) -> list[int]:
    """Wait until the commit has come to this offset, or for so many seconds; return what lies behind it."""
    deadline = time.monotonic() + seconds
    while True:
        held = [record.offset for record in await stage.unfinished(subscription)]
        if (held and held[0] >= first) or time.monotonic() > deadline:
            return held
        await asyncio.sleep(0.1)


def manifests() -> list[dict[str, Any]]:
    """Return what the process reads: Triggers with and without a delay for their retries, and such a KafkaSource."""
    external = {"kafka.eventing.knative.dev/external.topic": "process"}
    sink = {"deadLetterSink": {"ref": {"name": "letters"}}}
    hasty = {"retry": 2, "backoffDelay": "PT0.2S", "backoffPolicy": "exponential", "timeout": "PT90S", **sink}
    return [
        {"kind": "Broker", "metadata": {"name": "broker", "annotations": external}},
        {"kind": "KafkaSink", "metadata": {"name": "letters"}, "spec": {"topic": "process.dlq"}},
        *map(_service, ("process", "patient", "patient-source")),
        _trigger("process", hasty),
        _trigger("patient", {"retry": 2, "timeout": "PT10S", **sink}),
        {
            "kind": "KafkaSource",
            "metadata": {"name": "patient-source", "namespace": NAMESPACE},
            "spec": {
                "topics": ["raw"],
                "consumerGroup": "patient-source",
                "initialOffset": "earliest",
                "sink": {"ref": {"name": "patient-source"}},
                "delivery": {"retry": 2, **sink},
            },
        },
    ]  # fmt: skip


def _service(name: str) -> dict[str, Any]:
    scale = {"autoscaling.knative.dev/min-scale": "0", "autoscaling.knative.dev/max-scale": "1"}
    container = {"args": [name], "resources": {}}
    spec = {"containerConcurrency": 0, "timeoutSeconds": 90, "containers": [container]}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "kind": "Service",
        "metadata": metadata,
        "spec": {"template": {"metadata": {"annotations": scale}, "spec": spec}},
    }


def _trigger(name: str, delivery: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "Trigger",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "broker": "broker",
            "filters": [{"exact": {"type": name}}],
            "subscriber": {"ref": {"name": name}},
            "delivery": delivery,
        },
    }
