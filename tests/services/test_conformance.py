"""The local data plane is Knative's: each row of what was observed there, on a real Kafka.

All scenes run at the same time, once; a row looks at what one of them came to. A row whose name begins with "other-results"
says what this data plane does instead of what Knative's does, or in addition.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from layerscope.dataplane.dispatch import WINDOW
from layerscope.dataplane.filters import InvalidFilter, parse_all
from layerscope.dataplane.resources import DeliveryPolicy, InvalidManifest
from layerscope.events.kafka_log import KafkaLog
from tests.events.kafka_server import KafkaServer
from tests.layerscope.contracts.answers import Case
from tests.services import conformance_answers, conformance_flow
from tests.services.conformance import Seen, Stage, gaps
from tests.services.conformance_answers import ANSWERS, FILTERED, FILTERS, TRACE, slug

pytestmark = pytest.mark.services

SCENES = {
    "answers": conformance_answers.answers,
    "filters": conformance_answers.filters,
    "records": conformance_answers.records,
    "sources": conformance_answers.sources,
    "sinks": conformance_answers.sinks,
    "places": conformance_answers.places,
    "transactions": conformance_answers.transactions,
    "ordered": conformance_flow.ordered,
    "window": conformance_flow.window,
    "crowd": conformance_flow.crowd,
    "commits": conformance_flow.commits,
    "joined": conformance_flow.joined,
    "changed": conformance_flow.changed,
    "process": conformance_flow.process,
}
LATER = ({"window", "crowd"}, {"ordered"})  # after the others: the first need the machine, the last tells of its speed
LATE_SECONDS = 20.0  # how much later than it should a busy machine may do something
BACKOFF = [0.4, 0.8, 1.6]


@dataclass(frozen=True)
class Row:
    """One row of a table, and how it is seen in what a scene came to."""

    table: str
    name: str
    scene: str
    check: Callable[[Seen], None]


ROWS: list[Row] = []


def row(table: str, name: str, scene: str) -> Callable[[Callable[[Seen], None]], Callable[[Seen], None]]:
    """Enter a check as a row."""

    def enter(check: Callable[[Seen], None]) -> Callable[[Seen], None]:
        ROWS.append(Row(table, name, scene, check))
        return check

    return enter


def waited(actual: list[float], wanted: list[float]) -> None:
    """Check waits: a sleep never ends early; how late it ends is up to the machine."""
    assert len(actual) == len(wanted)
    for one, least in zip(actual, wanted, strict=True):
        assert least - 0.002 <= one <= least + LATE_SECONDS


def errors(seen: Seen, identifier: str) -> dict[str, str]:
    """Return what a dead letter has that the event had not."""
    added = seen.letter(identifier).extensions.items()
    return {name: value for name, value in added if name not in ("partitionkey", "product", "lane", "traceparent")
            and not name.startswith("knativekafka")}  # fmt: skip


def after_produce(seen: Seen, identifier: str) -> float:
    """Return the seconds from an event's record to its dead letter's."""
    ((letter, _),) = seen.letters[identifier]
    ((record, _),) = seen.events()[identifier]
    return (letter.timestamp_ms - record.timestamp_ms) / 1000


def destination(trigger: str) -> dict[str, str]:
    return {"knativeerrordest": f"http://{trigger}.demo.svc.cluster.local/"}


def check_answer(name: str, case: Case, seen: Seen) -> None:
    identifier = slug(name)
    calls = seen.calls(identifier)
    assert len(calls) == case.calls
    if "303" not in name:
        waited(gaps(calls), BACKOFF[: case.calls - 1])
    assert (f"answer-{identifier}" in seen.events()) == case.replied
    assert (identifier in seen.letters) == (case.told is not None)
    if case.told is not None:
        told = errors(seen, identifier)
        assert tuple(sorted(key for key in told if key.startswith("knativeerror"))) == case.told
        assert told["knativeerrordest"] == destination("answers")["knativeerrordest"]
        assert told.get("knativeerrorcode", "") == case.code
        assert 0 <= after_produce(seen, identifier) - sum(BACKOFF[: case.calls - 1]) <= 2 * LATE_SECONDS
    ((record, _),) = seen.events()[identifier]
    assert record.offset not in seen.unfinished["answers"]


for answer, case in ANSWERS.items():
    row("Subscriber answers", answer, "answers")(partial(check_answer, answer, case))


@row("Subscriber answers", "a reply is a binary record, key = partitionkey", "answers")
def _(seen: Seen) -> None:
    for identifier in ("answer-200-structured-event", "answer-200-binary-event"):
        ((record, event),) = seen.events()[identifier]
        assert (record.key, dict(record.headers)["content-type"]) == (b"d/m", b"application/json")
        assert (json.loads(record.value or b""), event.extensions["partitionkey"]) == ({"a": 1}, "d/m")


@row("Receiver", "no partitionkey: no key", "answers")
def _(seen: Seen) -> None:
    ((record, _),) = seen.events()["answer-unkeyed"]
    assert record.key is None


@row("Subscriber answers", "data is base64 of the first 1024 bytes", "answers")
def _(seen: Seen) -> None:
    told = errors(seen, slug("422 + 2 KiB"))["knativeerrordata"]
    assert base64.b64decode(told) == (bytes(range(256)) * 8)[:1024]


@row("Subscriber answers", "kne-reason, KNE-Class: reason, class", "answers")
def _(seen: Seen) -> None:
    told = errors(seen, slug("422 + kne-reason, KNE-Class"))
    assert (told["reason"], told["class"]) == ("x", "y")


@row(
    "Subscriber answers",
    "differs: kne-error-class becomes errorclass, is committed, and the next event goes",
    "ordered",
)
def _(seen: Seen) -> None:
    assert errors(seen, "a0") == {"knativeerrorcode": "422", "errorclass": "x", **destination("wedged")}
    assert sorted(seen.subscribers["wedged"].ids()) == sorted(f"{side}{n}" for side in "ab" for n in range(8))
    assert seen.unfinished["wedged"] == []


@row("Subscriber answers", "linear, retry 2, 300 ms", "answers")
def _(seen: Seen) -> None:
    waited(gaps(seen.calls("linear")), [0.3, 0.6])
    assert errors(seen, "linear") == {"knativeerrorcode": "503", **destination("linear")}


@row("Subscriber answers", "no answer within the timeout: the next call starts while the first runs", "answers")
def _(seen: Seen) -> None:
    calls = seen.calls("late")
    assert len(calls) == 4
    assert all(gap > wait for gap, wait in zip(gaps(calls), BACKOFF, strict=True))
    assert [call.under_way for call in calls[:2]] == [1, 2]
    assert errors(seen, "late") == destination("late")
    assert 10.8 - 0.01 <= after_produce(seen, "late") <= 10.8 + 2 * LATE_SECONDS


@row("Subscriber answers", "connection refused", "answers")
def _(seen: Seen) -> None:
    assert (seen.status["refused"].attempts, seen.status["refused"].dead_letters) == (4, 1)
    assert errors(seen, "refused") == destination("refused")
    assert 2.8 - 0.01 <= after_produce(seen, "refused") <= 2.8 + 2 * LATE_SECONDS


@row("Subscriber answers", "303: GET of Location with the event as body", "answers")
def _(seen: Seen) -> None:
    post, get = seen.calls(slug("303 + Location"))
    assert (post.method, get.method, get.path, get.body) == ("POST", "GET", "/there", post.body)


for status, count in ((422, 1), (503, 2)):

    @row("Subscriber answers", f"no dead letter sink: {status}", "answers")
    def _(seen: Seen, identifier: str = f"unsunk-{status}", count: int = count) -> None:
        waited(gaps(seen.calls(identifier)), BACKOFF[: count - 1])
        assert identifier not in seen.letters
        assert (seen.status["unsunk"].lost, seen.unfinished["unsunk"]) == (2, [])


@row("Subscriber answers", "nothing is lost but where a row says so, and all is committed", "answers")
def _(seen: Seen) -> None:
    status = seen.status["answers"]
    assert status.delivered + status.dead_letters == len(ANSWERS)
    assert {name: one.lost for name, one in seen.status.items() if one.lost} == {"unsunk": 2}
    assert seen.unfinished == {name: [] for name in seen.status}


@row(
    "Subscriber answers", "differs: a Trigger's retries without backoffDelay wait as the control plane says", "process"
)
def _(seen: Seen) -> None:
    waited(gaps(seen.calls("patient")), [2.0])
    with pytest.raises(InvalidManifest):
        DeliveryPolicy(2, "exponential", 0.0, 2.0, None)


@row(
    "Subscriber answers",
    "differs: a KafkaSource's retries without backoffDelay wait as the control plane says",
    "process",
)
def _(seen: Seen) -> None:
    waited(gaps(seen.calls("patient-source")), [0.4])


@row("Subscriber answers", "reply discarded (KafkaSource): 200 text, 200 event, 204 + ce- headers", "sources")
def _(seen: Seen) -> None:
    for identifier in ("text", "replying", "empty-reply"):
        assert len([c for c in seen.subscribers["minio"].calls if c.header("ce-id") == identifier]) == 1
        assert identifier not in seen.letters
    assert "answer" not in seen.events()


@row("Dead letter sink answers", "503, then 204: stored once it can be", "sinks")
def _(seen: Seen) -> None:
    assert errors(seen, "late-sink")["knativeerrorcode"] == "422"
    assert len(seen.calls("late-sink")) == 1
    assert seen.unfinished["late-sink"] == []


@row(
    "Dead letter sink answers", "differs: 500 always: not committed, not lost, and it holds up no other event", "sinks"
)
def _(seen: Seen) -> None:
    assert len(seen.calls("no-sink")) == 1
    assert len(seen.calls("beside")) == 1
    ((record, _),) = seen.events()["no-sink"]
    assert record.offset in seen.unfinished["no-sink"]
    assert (seen.status["no-sink"].lost, seen.status["no-sink"].in_flight) == (0, 1)


@row("Dead letter sink answers", "differs: 413: stored without the data", "sinks")
def _(seen: Seen) -> None:
    assert errors(seen, "small")["knativeerrorcode"] == "422"
    assert seen.letter("small").data is None
    assert (seen.status["small"].lost, seen.unfinished["small"]) == (0, [])


@row("Dead letter sink answers", "400, even without the data: committed, lost, and counted", "sinks")
def _(seen: Seen) -> None:
    assert "tiny" not in seen.letters
    assert (seen.status["tiny"].lost, seen.unfinished["tiny"]) == (1, [])


@row(
    "Dead letter sink answers",
    "differs: 200 + text, 200 + event: the sink is a topic; nothing of it is published",
    "sinks",
)
def _(seen: Seen) -> None:
    assert Counter(seen.events().keys()) == Counter(["late-sink", "no-sink", "small", "tiny", "beside"])
    assert len(seen.records) == 5


def only(seen: Seen, identifier: str) -> dict[str, str]:
    """Return the headers of the only call with an event."""
    (call,) = seen.calls(identifier)
    return headers(call.headers)


def headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in raw}


@row("Requests", "POST in binary mode, HTTP/1.1, Prefer, Kn-Namespace, content-type and -length", "records")
def _(seen: Seen) -> None:
    (call,) = seen.calls("sent")
    assert (call.method, call.version, call.body) == ("POST", "HTTP/1.1", b'{"a":1}')
    sent = only(seen, "sent")
    assert (sent["prefer"], sent["kn-namespace"], sent["content-length"]) == ("reply", "demo", "7")
    assert (sent["content-type"], sent["ce-type"]) == ("application/json", "io.layerscope.test.v1")


@row("Requests", "connections are kept: one for each partition of an ordered Trigger", "ordered")
def _(seen: Seen) -> None:
    assert len(seen.subscribers["ordered"].calls) == 19
    assert seen.subscribers["ordered"].connections_made <= 4


@row("Requests", "where the record lay", "records")
def _(seen: Seen) -> None:
    sent = only(seen, "sent")
    assert (sent["ce-knativekafkapartition"], sent["ce-knativekafkaoffset"]) == ("0", "0")


@row("Requests", "the record's key is not sent, partitionkey is", "records")
def _(seen: Seen) -> None:
    assert "secret-key" not in str(only(seen, "sent"))
    assert only(seen, "sent")["ce-partitionkey"] == "d/m"


@row("Requests", "time keeps its digits, and every character its place", "records")
def _(seen: Seen) -> None:
    (call,) = seen.calls("sent")
    assert call.header("ce-time") == "2026-07-31T12:00:00.120000000Z"
    assert (call.event.subject, call.event.extensions["note"]) == ("d/Ü m/1", 'a "quoted" ☃ %41')


@row("Requests", "numbers and booleans arrive as text", "records")
def _(seen: Seen) -> None:
    assert (only(seen, "numbers")["ce-count"], only(seen, "numbers")["ce-done"]) == ("7", "true")


@row("Requests", "no Authorization, no retry counter: every attempt is the same request", "records")
def _(seen: Seen) -> None:
    first, second = seen.calls("again")
    assert headers(first.headers) == headers(second.headers)
    assert "authorization" not in headers(first.headers)


@row("Requests", "differs: user-agent is this data plane's", "records")
def _(seen: Seen) -> None:
    assert only(seen, "sent")["user-agent"] == "layerscope-dataplane"


@row("Requests", "a dead letter is the same event and its errors, without a number of attempts", "records")
def _(seen: Seen) -> None:
    letter, ((_, event),) = seen.letter("buried"), seen.events()["buried"]
    assert (letter.id, letter.type, letter.subject, letter.time, letter.data) == (
        event.id, event.type, event.subject, event.time, b'{"keep":1}',
    )  # fmt: skip
    data = base64.b64encode(b"why").decode()
    assert errors(seen, "buried") == {"knativeerrorcode": "422", "knativeerrordata": data, **destination("records")}
    assert letter.extensions["lane"] == "replay"


@row("Requests", "differs: traceparent of the record's header is forwarded as it is, and to no other event", "records")
def _(seen: Seen) -> None:
    assert only(seen, "traced")["traceparent"] == TRACE
    with_one = {call.header("ce-id") for call in seen.subscribers["records"].calls if call.header("traceparent")}
    assert with_one == {"traced"}


@row("Requests", "the extension traceparent stays an extension", "records")
def _(seen: Seen) -> None:
    assert only(seen, "sent")["ce-traceparent"] == TRACE
    assert "traceparent" not in only(seen, "sent")


@row("Requests", "structured becomes binary, and wins over ce_ headers", "records")
def _(seen: Seen) -> None:
    (call,) = seen.calls("wins")
    assert json.loads(call.body) == {"b": 2}
    assert "cloudevents" not in only(seen, "wins").get("content-type", "")
    assert seen.calls("named") == []


@row("Requests", "null value with ce_ headers: an event without data", "records")
def _(seen: Seen) -> None:
    (call,) = seen.calls("empty")
    assert (call.body, call.header("content-type")) == (b"", None)


@row("Requests", "Broker: not an event, no ce_id, broken JSON: discarded, committed, no dead letter", "records")
def _(seen: Seen) -> None:
    assert seen.status["records"].discarded == 3
    assert (len(seen.subscribers["records"].calls), set(seen.letters), seen.unfinished["records"]) == (
        10,
        {"buried"},
        [],
    )


def wrapped(seen: Seen, offset: int) -> dict[str, str]:
    return only(seen, f"partition:0/offset:{offset}")


@row("Requests", "KafkaSource wraps: id, type, source, subject, time, key", "sources")
def _(seen: Seen) -> None:
    sent = wrapped(seen, 1)
    assert (sent["ce-type"], sent["ce-subject"]) == ("dev.knative.kafka.event", "partition:0#1")
    assert sent["ce-source"] == "/apis/v1/namespaces/demo/kafkasources/minio#sources"
    assert sent["ce-key"] == sent["ce-partitionkey"] == "models/a.pth"
    assert sent["ce-time"].endswith("Z")


@row("Requests", "KafkaSource: MinIO's record keeps its body and gets no content-type", "sources")
def _(seen: Seen) -> None:
    (call,) = seen.calls("partition:0/offset:1")
    assert (call.body, call.header("content-type")) == (b'{"Records":[]}', None)


@row("Requests", "KafkaSource: kafkaheader<name>, content-type in lower case", "sources")
def _(seen: Seen) -> None:
    assert (wrapped(seen, 2)["ce-kafkaheaderxcustom1"], wrapped(seen, 2)["content-type"]) == ("v", "application/json")


@row("Requests", "KafkaSource: a key that is not UTF-8 gets replacement characters", "sources")
def _(seen: Seen) -> None:
    (call,) = seen.calls("partition:0/offset:2")
    assert call.event.extensions["key"] == call.event.extensions["partitionkey"] == "models/\ufffd"


@row("Requests", "KafkaSource wraps half an event", "sources")
def _(seen: Seen) -> None:
    assert wrapped(seen, 3)["ce-kafkaheadercesource"] == "/s"
    assert "ce-key" not in wrapped(seen, 3)


@row("Requests", "KafkaSource passes a whole event unchanged, and buries it like a Trigger", "sources")
def _(seen: Seen) -> None:
    (call,) = (one for one in seen.subscribers["minio"].calls if one.header("ce-id") == "whole")
    assert (call.event.type, call.event.subject, call.body) == ("io.layerscope.test.v1", "d/m/1", b'{"a":1}')
    assert errors(seen, "refusing")["knativeerrorcode"] == "422"


@row("Requests", "KafkaSource from latest begins when its group does", "sources")
def _(seen: Seen) -> None:
    assert "before" not in [call.header("ce-id") for call in seen.subscribers["minio"].calls]
    assert seen.unfinished["minio"] == []


@row("Requests", "differs: a new Trigger begins with the oldest record", "sources")
def _(seen: Seen) -> None:
    assert "before" in [call.header("ce-id") for call in seen.subscribers["oldest"].calls]


def check_filter(number: int, wanted: str, discarded: int, seen: Seen) -> None:
    name = f"filter-{number}"
    got = [call.header("ce-id") for call in seen.subscribers["filters"].calls if call.path == f"/{name}/"]
    assert sorted(map(str, got)) == sorted(wanted.split())
    assert (seen.status[name].discarded, seen.unfinished[name]) == (discarded, [])
    assert set(seen.events()) == set(FILTERED)


for number, (name, (_written, wanted, discarded)) in enumerate(FILTERS.items()):
    row("Filters", name, "filters")(partial(check_filter, number, wanted, discarded))


@row("Filters", "differs: CESQL is refused when the manifests are read", "filters")
def _(seen: Seen) -> None:
    with pytest.raises(InvalidFilter, match="cesql"):
        parse_all([{"cesql": "type = 'a' AND product IN ('thumb','mesh')"}])


FLOW = "Order, concurrency, commits"


def sides(seen: Seen) -> tuple[list[str], list[str]]:
    called = [str(call.header("ce-id")) for call in seen.subscribers["ordered"].calls]
    return [one for one in called if one[0] == "a"], [one for one in called if one[0] == "b"]


@row(FLOW, "ordered: one at a time in each partition, whatever the key", "ordered")
def _(seen: Seen) -> None:
    a, b = sides(seen)
    assert a == ["a0", "a0", "a0", *(f"a{n}" for n in range(8))]
    assert b == [f"b{n}" for n in range(8)]
    assert len({record.key for record in seen.records}) == 16
    assert seen.subscribers["ordered"].most_under_way <= 2
    assert seen.unfinished["ordered"] == []


@row(FLOW, "ordered: partitions are independent, one goes on while another is in backoff", "ordered")
def _(seen: Seen) -> None:
    calls = seen.subscribers["ordered"].calls
    retried = [call for call in calls if call.header("ce-id") == "a0"]
    waited(gaps(retried), BACKOFF)
    meanwhile = [call for call in calls if retried[0].at < call.at < retried[-1].at and call not in retried]
    assert len(meanwhile) >= 4


@row(FLOW, "ordered: little time between events", "ordered")
def _(seen: Seen) -> None:
    calls = [c for c in seen.subscribers["ordered"].calls if str(c.header("ce-id"))[0] == "b"]
    assert statistics.median(gaps(calls)) - 0.02 < 0.5  # 1-8 ms there, on a machine with nothing else to do


@row(FLOW, f"unordered: {2 * WINDOW - 1} at once, {WINDOW} more while fewer than {WINDOW} are under way", "window")
def _(seen: Seen) -> None:
    assert seen.offsets == {"first": [WINDOW], "then": [2 * WINDOW - 1]}
    assert seen.subscribers["window"].most_under_way == 2 * WINDOW - 1
    assert Counter(seen.subscribers["window"].ids()) == Counter(map(str, range(160)))


@row(FLOW, "unordered: 300 events of 1 s in some seconds, no loss, no duplicate", "crowd")
def _(seen: Seen) -> None:
    crowd = seen.subscribers["crowd"]
    assert Counter(crowd.ids()) == Counter(map(str, range(300)))
    assert WINDOW < crowd.most_under_way < 2 * WINDOW
    assert crowd.calls[-1].at - crowd.calls[0].at < 60.0  # 5 s there; one after the other they take 300
    assert seen.unfinished["crowd"] == []


@row(FLOW, "a retry holds back nobody else", "commits")
def _(seen: Seen) -> None:
    first_retry = seen.calls("1")[1].at
    assert all(call.at < first_retry for n in (0, 2, 3, 4, 5) for call in seen.calls(str(n)))


@row(FLOW, "a retry holds back the commit: the contiguous prefix, then all at once", "commits")
def _(seen: Seen) -> None:
    assert seen.offsets["held"] == [1, 2, 3, 4, 5]
    waited(gaps(seen.calls("1")), [1.5, 3.0, 4.5])
    assert seen.unfinished["commits"] == []


@row(FLOW, "the commit is visible within 5 s", "commits")
def _(seen: Seen) -> None:
    assert seen.seconds["commit"] < 5.0


@row(FLOW, "kill -9: every event after the slow one again, and none before it", "process")
def _(seen: Seen) -> None:
    assert seen.offsets["held"] == [1, 2, 3, 4]
    assert {name: len(seen.calls(name)) for name in ("done", "slow", "x", "y")} == {
        "done": 1,
        "slow": 2,
        "x": 2,
        "y": 2,
    }


@row(FLOW, "kill -9: attempts start anew", "process")
def _(seen: Seen) -> None:
    calls = seen.calls("retried")
    assert len(calls) == 2 + 3
    waited(gaps(calls[2:]), [0.4, 0.8])
    assert (
        sum(
            call.header("ce-id") == "retried"
            for call in seen.subscribers["process"].calls[: seen.offsets["killed after"][0]]
        )
        == 2
    )


@row(FLOW, "differs: SIGTERM lets calls under way end, commits them, and no event is delivered again", "process")
def _(seen: Seen) -> None:
    assert len(seen.calls("last")) == 1
    assert "last" in seen.subscribers["process"].finished
    assert seen.unfinished["process"] == []
    assert seen.offsets["status"][0] in (0, -15)


@row(FLOW, "metrics: lag, in flight, attempts, dead letters", "process")
def _(seen: Seen) -> None:
    for line in ("lag{0} 0.0", "in_flight{0} 0.0", "attempts_total{0} 6.0", "dead_letters_total{0} 1.0"):
        assert "layerscope_dataplane_" + line.format('{subscription="process"}') in seen.texts["metrics"]


@row(FLOW, "a changed Trigger: no duplicate, no loss, order kept", "changed")
def _(seen: Seen) -> None:
    calls = [[call.header("ce-id") for call in seen.subscribers[name].calls] for name in ("old", "new")]
    assert [one for one in calls[0] if one != "w"] == ["0"]
    assert [one for one in calls[1] if one != "w"] == ["1", "2"]
    assert "0" in seen.subscribers["old"].finished
    assert seen.unfinished == {"called": [], "waiting": []}


@row(FLOW, "differs: a changed Trigger leaves a retry that waits to its successor", "changed")
def _(seen: Seen) -> None:
    assert len([call for call in seen.subscribers["old"].calls if call.header("ce-id") == "w"]) == 1
    assert len([call for call in seen.subscribers["new"].calls if call.header("ce-id") == "w"]) == 1
    assert seen.seconds["stop"] < 15.0  # its retry was due after thirty


@row(FLOW, "a second data plane joins with jobs under way: no loss, and both deliver", "joined")
def _(seen: Seen) -> None:
    assert seen.offsets["under way at the join"] == [8]
    called = {call.header("ce-id") for one in seen.subscribers.values() for call in one.calls}
    assert called == {str(n) for n in range(16)}
    assert seen.offsets["delivered by the second"] == [8]
    assert seen.unfinished["joined"] == []


@row(FLOW, "a second data plane joins: what was under way in its partition is delivered again", "joined")
def _(seen: Seen) -> None:
    again = {call.header("ce-id") for call in seen.subscribers["second"].calls}
    assert again in ({str(n) for n in range(0, 16, 2)}, {str(n) for n in range(1, 16, 2)})
    assert {len(seen.calls(str(one))) for one in again if int(str(one)) < 8} == {2}


@row(FLOW, "differs: a second data plane joins: what was under way in the other partition is not", "joined")
def _(seen: Seen) -> None:
    again = {call.header("ce-id") for call in seen.subscribers["second"].calls}
    assert {len(seen.calls(str(n))) for n in range(16) if str(n) not in again} == {1}


@row(FLOW, "differs: the time of a call begins when its Service has a place", "places")
def _(seen: Seen) -> None:
    places = seen.subscribers["places"]
    assert (places.most_under_way, len(places.calls)) == (1, 9)
    assert (seen.status["places"].delivered, seen.status["places"].dead_letters) == (9, 0)


@row(FLOW, "read_committed: what a transaction aborted is not delivered, nor queued", "transactions")
def _(seen: Seen) -> None:
    assert seen.subscribers["transactions"].ids() == ["committed", "open"]
    assert seen.unfinished["transactions"] == []
    assert seen.status["transactions"].lag == 0


@row(FLOW, "read_committed: an event is delivered when its transaction is committed, not before", "transactions")
def _(seen: Seen) -> None:
    assert seen.offsets == {"calls while it was open": [1], "queued then": []}


async def play(bootstrap_servers: str, log: KafkaLog, folder: Path) -> dict[str, Seen | BaseException]:
    """Run every scene; one that fails costs its own rows only."""
    # Each data plane asks for its log's state on a thread, and so do the scenes.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    first = SCENES.keys() - set().union(*LATER)
    stage = Stage(bootstrap_servers, log, folder, asyncio.Barrier(len(first) - 1))
    played: dict[str, Seen | BaseException] = {}
    for names in (first, *LATER):
        scenes = await asyncio.gather(*(SCENES[name](stage) for name in names), return_exceptions=True)
        played |= zip(names, scenes, strict=True)
    return played


@pytest.fixture(scope="module")
def played(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen | BaseException]:
    with closing(KafkaLog(kafka.bootstrap_servers)) as log:
        return asyncio.run(play(kafka.bootstrap_servers, log, tmp_path_factory.mktemp("conformance")))


@pytest.fixture(scope="module")
def passed() -> Iterator[Counter[str]]:
    """Count the rows that hold, by their table."""
    yield Counter()


@pytest.mark.parametrize("one", ROWS, ids=[f"{one.table}: {one.name}" for one in ROWS])
def test_what_was_observed_is_what_is_done(
    one: Row, played: dict[str, Seen | BaseException], passed: Counter[str]
) -> None:
    seen = played[one.scene]
    if isinstance(seen, BaseException):
        raise AssertionError(f"the scene {one.scene} did not come to its end") from seen
    one.check(seen)
    passed[one.table] += 1


def test_every_row_was_looked_at(passed: Counter[str]) -> None:
    rows = Counter(one.table for one in ROWS)
    differing = sum(one.name.startswith("other-results") for one in ROWS)
    print(f"\nconformance: {rows.total()} rows, {passed.total()} passed, {differing} of them differ by design")
    for table, count in rows.items():
        print(f"  {table}: {count} rows, {passed[table]} passed")
    assert len({(one.table, one.name) for one in ROWS}) == len(ROWS)
    assert rows == passed
