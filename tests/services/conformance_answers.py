"""Scenes about one event at a time: what is answered, what is sent, which events a Trigger wants, where letters go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from layerscope.dataplane.resources import Subscription
from layerscope.events.cloudevent import CloudEvent
from layerscope.events.kafka import KafkaMessage, to_record
from tests.events.library import KafkaAdminClient, KafkaProducer
from tests.layerscope.contracts.answers import CODE, DATA, TABLE, Case
from tests.layerscope.dataplane.scripted import BINARY, TEXT, Reply, Scripted, until
from tests.services.conformance import Seen, Stage, event, events_in, listening, policy, running, source, trigger, typed

CE: Final = (("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_type", b"t"))
TRACE: Final = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
STRUCTURED: Final = (("content-type", b"application/cloudevents+json"),)
NUMBERS: Final = {"specversion": "1.0", "id": "numbers", "source": "/s", "type": "t", "count": 7, "done": True}
# Rows of the table of answers that are not in the one that the tests without a server share.
MORE: Final = {
    "422 + kne-reason, KNE-Class": Case(
        (Reply(422, (("kne-reason", "x"), ("KNE-Class", "y"))),), told=CODE, code="422"
    ),
    "422 + 2 KiB": Case(
        (Reply(422, TEXT, bytes(range(256)) * 8),),
        told=DATA,
        code="422",
    ),
    "303 + Location": Case((Reply(303, (("location", "/there"),)), Reply(204)), calls=2),
    "303 + Location, reply there": Case(
        (Reply(303, (("location", "/there"),)), Reply(200, BINARY, b"{}")), calls=2, replied=True
    ),
}
ANSWERS: Final = {**TABLE, **MORE}
FILTERED: Final = {
    "x": event("x", "a.written", product="x"),
    "y": event("y", "a.written", product="y").with_attributes(subject="other/net/1"),
    "bare": event("bare", "b.refused").with_attributes(subject=None, datacontenttype=None),
    "replayed": event("replayed", "a.written", product="x", lane="replay"),
}
WRITTEN: Final = {"exact": {"type": "a.written"}}
REFUSED: Final = {"exact": {"type": "b.refused"}}
# The filters of a Trigger; the events that it gets; how many are discarded because the filter cannot be put to them.
FILTERS: Final[Mapping[str, tuple[list[dict[str, Any]], str, int]]] = {
    "none": ([], "x y bare replayed", 0),
    "exact": ([WRITTEN], "x y replayed", 0),
    "exact, two attributes": ([{"exact": {"type": "a.written", "product": "x"}}], "x replayed", 0),
    "exact is case-sensitive": ([{"exact": {"type": "A.written"}}], "", 0),
    "any": ([{"any": [REFUSED, {"exact": {"product": "y"}}]}], "y bare", 0),
    "all": ([{"all": [WRITTEN, {"exact": {"product": "y"}}]}], "y", 0),
    "not": ([{"not": {"exact": {"product": "x"}}}], "y bare", 0),
    "several are all": ([WRITTEN, {"not": {"exact": {"lane": "replay"}}}], "x y", 0),
    "all of any and not": ([{"all": [{"any": [WRITTEN, REFUSED]}, {"not": {"prefix": {"type": "b."}}}]}], "x y replayed", 0),
    "prefix": ([{"prefix": {"type": "a."}}], "x y replayed", 0),
    "suffix": ([{"suffix": {"type": ".refused"}}], "bare", 0),
    "exact, no such extension": ([{"exact": {"lane": "replay"}}], "replayed", 0),
    "not, no such extension": ([{"not": {"exact": {"lane": "replay"}}}], "x y bare", 0),
    "exact, no subject": ([{"exact": {"subject": "d/m/1"}}], "x replayed", 0),
    "prefix, no such extension": ([{"prefix": {"product": "x"}}], "x replayed", 0),
    "suffix, no such extension": ([{"suffix": {"dataschema": "x"}}], "", 0),
    "prefix, no subject: discarded": ([{"prefix": {"subject": "d/"}}], "x replayed", 1),
    "prefix, no subject, in any: discarded": ([{"any": [{"prefix": {"subject": "d/"}}, REFUSED]}], "x replayed", 1),
    "suffix, no subject, in any: discarded": ([{"any": [{"suffix": {"subject": "/1"}}, REFUSED]}], "x y replayed", 1),
    "prefix, no datacontenttype: discarded": ([{"prefix": {"datacontenttype": "application/"}}], "x y replayed", 1),
}  # fmt: skip


def slug(name: str) -> str:
    """Return the id of the event of a row."""
    return re.sub("[^a-z0-9]+", "-", name.lower())


def _labelled(answer: Reply, name: str) -> Reply:
    """Return the answer with an event whose id is its row's, where it holds one."""
    label = f"answer-{slug(name)}"
    headers = tuple((k, label if (k, v) == ("ce-id", "answer") else v) for k, v in answer.headers)
    return replace(answer, headers=headers, body=answer.body.replace(b'"answer"', f'"{label}"'.encode()))


async def answers(stage: Stage) -> Seen:
    """Every answer, each to an event of its own, under the policy with which the table was observed; and other policies."""
    await stage.topics(answers=2)
    asked = {
        "answers": Scripted(by_id={slug(n): [_labelled(a, n) for a in c.answers] for n, c in ANSWERS.items()}),
        "linear": Scripted((Reply(503),)),
        "unsunk": Scripted(by_id={"unsunk-422": (Reply(422),), "unsunk-503": (Reply(503),)}),
        "late": Scripted((Reply(204, seconds=9.0),)),
        "replies": Scripted(by_id={"keyed": (Reply(200, BINARY, b"{}"),), "unkeyed": (Reply(200, _UNKEYED),)}),
    }
    async with Scripted().listening() as nobody:  # whoever listened there has gone
        pass
    triggers = [
        typed("answers", "answers", policy("answers")),
        typed("linear", "answers", policy("answers", 2, "linear", 0.3)),
        typed("unsunk", "answers", policy(None, 1)),
        typed("late", "answers", policy("answers", timeout=2.0)),
        typed("replies", "answers", policy("answers")),
        typed("refused", "answers", policy("answers")),
    ]
    async with listening(**asked) as urls, running(stage.log, {**urls, "refused": nobody}, *triggers) as plane:
        await stage.together()
        await stage.publish("answers", *(event(slug(name), "answers") for name in ANSWERS))
        await stage.publish("answers", *(event(name, name) for name in ("linear", "late", "refused")))
        await stage.publish("answers", *(event(name, "unsunk") for name in asked["unsunk"].by_id))
        await stage.publish("answers", *(event(name, "replies") for name in asked["replies"].by_id))
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(asked["late"].calls) >= 4 and len(asked["linear"].calls) >= 3)
        return await stage.collect(plane, triggers, asked)


_UNKEYED = tuple(
    (name, "answer-unkeyed" if name == "ce-id" else value) for name, value in BINARY if name != "ce-partitionkey"
)


async def filters(stage: Stage) -> Seen:
    """A Trigger for each filter, all on one topic; the path of a call tells whose it is."""
    await stage.topics(filters=2)
    subscriber = Scripted()
    triggers = [
        trigger(f"filter-{n}", "filters", policy(None), filters=f) for n, (f, _, _) in enumerate(FILTERS.values())
    ]
    async with subscriber.listening() as url:
        urls = {one.name: f"{url}/{one.name}" for one in triggers}
        async with running(stage.log, urls, *triggers) as plane:
            await stage.together()
            await stage.publish("filters", *FILTERED.values())
            expected = sum(len(wanted.split()) for _, wanted, _ in FILTERS.values())
            with contextlib.suppress(TimeoutError):
                await until(lambda: len(subscriber.calls) >= expected)
            return await stage.collect(plane, triggers, {"filters": subscriber})


async def records(stage: Stage) -> Seen:
    """Records of every kind, as a Trigger offers them."""
    await stage.topics(records=1)
    sent = event("sent", traceparent=TRACE, note='a "quoted" ☃ %41')
    sent = sent.with_attributes(time="2026-07-31T12:00:00.120000000Z", subject="d/Ü m/1")
    binary = (("ce_id", b"named"), *CE)
    messages = [
        replace(to_record(sent), key=b"models/secret-key"),
        KafkaMessage(None, json.dumps({**NUMBERS, "id": "wins", "data": {"b": 2}}).encode(), (*STRUCTURED, *binary)),
        KafkaMessage(None, json.dumps(NUMBERS).encode(), STRUCTURED),
        KafkaMessage(b"k", None, (("ce_id", b"empty"), *CE)),
        KafkaMessage(b"k", b"{}"),
        KafkaMessage(b"k", b"{}", CE),
        KafkaMessage(b"k", b"{", STRUCTURED),
        KafkaMessage(b"k", b"x", (("ce_id", b"traced"), *CE, ("traceparent", TRACE.encode()))),
        KafkaMessage(b"k", b"x", (("ce_id", b"untraced"), *CE)),
        to_record(event("again")),
        to_record(event("buried", lane="replay").with_data(b'{"keep":1}')),
    ]
    subscriber = Scripted(by_id={"again": (Reply(503), Reply(204)), "buried": (Reply(503), Reply(422, TEXT, b"why"))})
    subscription = trigger("records", "records", policy("records"))
    async with listening(records=subscriber) as urls, running(stage.log, urls, subscription) as plane:
        await stage.together()
        await stage.publish("records", *messages)
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(subscriber.calls) >= 10)
        return await stage.collect(plane, [subscription], {"records": subscriber})


async def sources(stage: Stage) -> Seen:
    """What a KafkaSource makes of records, what it does with answers, and where a group that never read begins."""
    await stage.topics(sources=1)
    await stage.publish("sources", event("before"))
    subscriber = Scripted(
        by_id={
            "text": (Reply(200, TEXT, b"fine"),),
            "replying": (Reply(200, BINARY, b"{}"),),
            "empty-reply": (Reply(204, BINARY),),
            "refusing": (Reply(422, TEXT, b"why"),),
        }
    )
    oldest = Scripted()
    minio = replace(source("minio", "sources", policy("sources")), start="latest")
    subscriptions = [minio, trigger("oldest", "sources", policy("sources"))]
    asked = {"minio": subscriber, "oldest": oldest}
    custom = (("X-Custom-1", b"v"), ("Content-Type", b"Application/JSON"))
    async with listening(**asked) as urls, running(stage.log, urls, *subscriptions) as plane:
        await stage.together()
        await stage.publish("sources", KafkaMessage(b"models/a.pth", b'{"Records":[]}'))
        await stage.publish("sources", KafkaMessage(b"models/\xff", b"{}", custom), KafkaMessage(None, b"{}", CE))
        await stage.publish("sources", *map(event, subscriber.by_id))
        await stage.publish("sources", event("whole"))
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(subscriber.calls) >= 8 and len(oldest.calls) >= 6)
        return await stage.collect(plane, subscriptions, asked)


async def sinks(stage: Stage) -> Seen:
    """Dead letters for topics that are not there, or come late, or take no message of that size."""
    await stage.topics(sinks=1)
    sizes = {"small": 1500, "tiny": 60}
    await asyncio.to_thread(_make_topics, stage.bootstrap_servers, sizes)
    names = ("late-sink", "no-sink", "small", "tiny")
    subscriber = Scripted((Reply(422, TEXT, b"why"),), by_id={"beside": (Reply(204),)})
    triggers = [typed(name, "sinks", replace(policy(name, 3), dead_letter_topic=f"{name}.letters")) for name in names]
    # The dead letter that is stored nowhere holds up a commit for as long as this scene lasts.
    settled = [one for one in triggers if one.name != "no-sink"]
    async with subscriber.listening() as url, running(stage.log, dict.fromkeys(names, url), *triggers) as plane:
        await stage.together()
        big = bytes(range(33, 127)).replace(b'"', b"").replace(b"\\", b"") * 40
        await stage.publish("sinks", *(event(n, n).with_data(b'"' + big + b'"') for n in names))
        await stage.publish("sinks", event("beside", "no-sink"))
        await until(lambda: subscriber.asked.total() >= 5)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(_make_topics, stage.bootstrap_servers, {"late-sink": 1_000_000})
        seen = await stage.collect(plane, settled, {"sinks": subscriber})
        for name in ("late-sink", "small", "tiny"):
            seen.letters |= events_in(await stage.read(f"{name}.letters"))
        seen.unfinished["no-sink"] = [record.offset for record in await stage.unfinished(_named(triggers, "no-sink"))]
        return seen


def _named(subscriptions: list[Subscription], name: str) -> Subscription:
    return next(one for one in subscriptions if one.name == name)


def _make_topics(bootstrap_servers: str, sizes: Mapping[str, int]) -> None:
    wanted = {
        f"{name}.letters": {"num_partitions": 1, "replication_factor": -1, "configs": {"max.message.bytes": str(size)}}
        for name, size in sizes.items()
    }
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap_servers)) as admin:
        admin.create_topics(wanted)
        admin.wait_for_topics(list(wanted), timeout_ms=10_000)


async def places(stage: Stage) -> Seen:
    """Nine calls of a second for a Service that takes one at a time, with a timeout of seven."""
    await stage.topics(places=1)
    subscriber, subscription = (
        Scripted((Reply(204, seconds=1.0),)),
        trigger("places", "places", policy("places", 0, timeout=7.0)),
    )
    async with listening(places=subscriber) as urls, running(stage.log, urls, subscription, concurrency=1) as plane:
        await stage.together()
        await stage.publish("places", *(event(str(number)) for number in range(9)))
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(subscriber.finished) >= 9)
        return await stage.collect(plane, [subscription], {"places": subscriber})


async def transactions(stage: Stage) -> Seen:
    """Events of a transaction that is aborted, of one that is committed, and of one that is committed only later."""
    await stage.topics(transactions=1)
    subscriber = Scripted()
    subscription = trigger("transactions", "transactions", policy("transactions"))
    async with listening(transactions=subscriber) as urls, running(stage.log, urls, subscription) as plane:
        await stage.together()
        producer = await asyncio.to_thread(_transactional, stage.bootstrap_servers)
        try:
            for name, end in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
                await asyncio.to_thread(_send, producer, event(name))
                await asyncio.to_thread(end)
            await asyncio.to_thread(_send, producer, event("open"))
            await until(lambda: subscriber.calls)
            await asyncio.sleep(1.5)
            before = len(subscriber.calls)
            left = await stage.unfinished(subscription)
            await asyncio.to_thread(producer.commit_transaction)
        finally:
            await asyncio.to_thread(producer.close)
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(subscriber.calls) >= 2)
        seen = await stage.collect(plane, [subscription], {"transactions": subscriber})
        seen.offsets = {"calls while it was open": [before], "queued then": [record.offset for record in left]}
        return seen


def _transactional(bootstrap_servers: str) -> Any:
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id="conformance")
    producer.init_transactions()
    return producer


def _send(producer: Any, one: CloudEvent) -> None:
    message = to_record(one)
    producer.begin_transaction()
    producer.send("transactions", key=message.key, value=message.value, headers=list(message.headers)).get(timeout=20)
