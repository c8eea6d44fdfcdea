"""One trace an upload: spans of announce, admit and what follows hang together, at a receiver of OTLP on this machine."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.http import from_request, to_binary
from layerscope.events.kafka import from_record
from layerscope.functions.announce.func import new as new_announce
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services, publish
from layerscope.functions.runtime.tracing import UNTRACED, NoTracing, Position, Tracing, begun, tracing
from layerscope.schemas.errors import Ignored, Unavailable
from layerscope.schemas.events import ModelAdmitted, ModelUploaded, ProductRequested, ProductWritten
from layerscope.schemas.identity import Identity
from layerscope.stores import uploads
from tests.functions.bucket import Bucket, add_dataset, services

WHO = {"dataset": "tiny", "model": "net", "version": "1"}
SUBJECT = "tiny/net/1"
UPLOADED = ModelUploaded(bucket="models", key="tiny/net/1.pth", etag="e1")
"""What is announced."""


@dataclasses.dataclass
class Receiver:
    """An OTLP receiver; `spans` are those that came."""

    url: str
    spans: list[Any]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            spans.extend(one for r in request.resource_spans for s in r.scope_spans for one in s.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Receiver(f"http://127.0.0.1:{server.server_port}", spans)
    server.shutdown()
    server.server_close()


@pytest.fixture
def traced(receiver: Receiver) -> Tracing:
    receiver.spans.clear()
    return tracing(receiver.url)


class Next(EventFunction):
    """A function that answers each event with the next of the chain."""

    async def respond(self, event: CloudEvent) -> CloudEvent:
        self.seen = event
        if event.subject == "gone/net/1":
            raise Ignored("it is gone")
        if event.subject == "down/net/1":
            raise Unavailable("the store does not answer")
        data = ModelAdmitted(**WHO, key="k", etag="e1", content="c" * 64)
        if event.type == ModelAdmitted.type:
            written = ProductWritten(**WHO, content="c" * 64, product="summary", address="a")
            return compose(written, source="/functions/summary", subject=SUBJECT, cause=event)
        return compose(data, source="/functions/admit", subject=SUBJECT, cause=event)


async def post(app: Any, headers: Mapping[str, str], body: bytes) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://function") as client:
        return await client.post("/", headers=dict(headers), content=body)


def ask(function: EventFunction, made: Services, event: CloudEvent) -> Any:
    function.attach(made)
    headers, body = to_binary(event)
    return asyncio.run(post(application(function), headers, body))


def announced(made: Services) -> CloudEvent:
    value = (
        b'{"Records": [{"eventSource": "aws:s3", "eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "models"},'
        b' "object": {"key": "tiny/net/1.pth", "size": 1, "eTag": "e1"}}}]}'
    )
    function = new_announce()
    function.attach(made)
    assert asyncio.run(post(application(function), {"content-type": "application/json"}, value)).status_code == 204
    (record,) = made.log.backlog(made.tenant.events, "nobody")
    event = from_record(record)
    assert event is not None
    return event


def test_the_spans_of_an_upload_are_one_trace_from_announce_on(
    receiver: Receiver, traced: Tracing, tmp_path: Path
) -> None:
    made = dataclasses.replace(services(tmp_path), tracing=traced)
    uploaded = announced(made)
    admitted = from_answer(ask(Next("admit"), made, uploaded))
    written = from_answer(ask(Next("summary"), made, admitted))
    traced.flush()
    spans = {one.name: one for one in receiver.spans}
    assert sorted(spans) == ["admit", "announce", "summary"]
    first = Position.read(uploaded.extensions["traceparent"])
    assert first is not None
    assert {one.trace_id for one in receiver.spans} == {first.trace.to_bytes(16, "big")}
    assert spans["announce"].span_id == first.span.to_bytes(8, "big") and spans["announce"].parent_span_id == b""
    assert spans["admit"].parent_span_id == spans["announce"].span_id
    assert spans["summary"].parent_span_id == spans["admit"].span_id
    last = Position.read(written.extensions["traceparent"])
    assert last is not None and last.span.to_bytes(8, "big") == spans["summary"].span_id
    said = {one.key: one.value.string_value for one in spans["summary"].attributes}
    assert said["cloudevents.event_subject"] == SUBJECT and said["cloudevents.event_type"] == ModelAdmitted.type


def from_answer(answer: Any) -> CloudEvent:
    assert answer.status_code == 200, answer.text
    return from_request([(name, value) for name, value in answer.headers.raw], answer.content)


def test_the_work_sees_its_own_span_as_that_of_its_cause(receiver: Receiver, traced: Tracing, tmp_path: Path) -> None:
    function = Next("admit")
    event = begun(compose(UPLOADED, source="/tests", subject=SUBJECT))
    ask(function, dataclasses.replace(services(tmp_path), tracing=traced), event)
    traced.flush()
    (span,) = receiver.spans
    inside = Position.read(function.seen.extensions["traceparent"])
    assert inside is not None and inside.span.to_bytes(8, "big") == span.span_id
    assert function.seen.with_attributes(traceparent=None) == event.with_attributes(traceparent=None)


def test_what_fails_is_an_error_and_what_is_passed_over_is_none(
    receiver: Receiver, traced: Tracing, tmp_path: Path
) -> None:
    made = dataclasses.replace(services(tmp_path), tracing=traced)
    for subject, status in (("down/net/1", 503), ("gone/net/1", 204)):
        assert (
            ask(Next("admit"), made, begun(compose(UPLOADED, source="/tests", subject=subject))).status_code == status
        )
    traced.flush()
    down, gone = receiver.spans
    assert (down.status.code, down.status.message) == (2, "the store does not answer")
    assert gone.status.code == 0
    assert {one.key: one.value.string_value for one in gone.attributes}["layerscope.ignored"] == "it is gone"


def test_an_upload_has_the_same_trace_however_often_and_by_whomever_it_is_announced() -> None:
    told = begun(compose(UPLOADED, source="/functions/announce", subject=SUBJECT))
    again = begun(compose(UPLOADED, source="/functions/announce", subject=SUBJECT))
    asked = UPLOADED.model_copy(update={"origin": "missing"})
    missed = begun(compose(asked, source="/functions/replay", subject=SUBJECT))
    other = begun(compose(UPLOADED.model_copy(update={"etag": "e2"}), source="/functions/announce", subject=SUBJECT))
    first, second, third, last = (Position.read(one.extensions["traceparent"]) for one in (told, again, missed, other))
    assert first and second and third and last
    assert first == second and first.trace == third.trace != last.trace


def test_what_is_published_names_its_trace_and_an_answer_that_of_its_cause(tmp_path: Path) -> None:
    made = services(tmp_path)
    asyncio.run(publish(made, compose(ProductRequested(**WHO, product="summary"), source="/tests", subject=SUBJECT)))
    (record,) = made.log.backlog(made.tenant.events, "nobody")
    asked = from_record(record)
    assert asked is not None and Position.read(asked.extensions["traceparent"])
    answer = from_answer(ask(Next("summary"), made, asked))
    assert answer.extensions["traceparent"] == asked.extensions["traceparent"]
    assert begun(answer) == answer


def test_what_repair_asks_for_goes_on_with_the_trace_of_the_upload(tmp_path: Path) -> None:
    made = services(tmp_path)
    add_dataset(made.store)
    Bucket(made.store, Identity.parse(SUBJECT)).admit()
    upload = uploads.current(made.store, Identity.parse(SUBJECT))
    assert upload is not None
    told = begun(
        compose(UPLOADED.model_copy(update={"key": upload.key, "etag": upload.etag}), source="/a", subject=SUBJECT)
    )
    for product in ("summary", "index"):
        asyncio.run(publish(made, compose(ProductRequested(**WHO, product=product), source="/tests", subject=SUBJECT)))
    asked = [from_record(record) for record in made.log.backlog(made.tenant.events, "nobody")]
    positions = [Position.read(one.extensions["traceparent"]) for one in asked if one is not None]
    trace = Position.read(told.extensions["traceparent"])
    assert trace and [one and one.trace for one in positions] == [trace.trace] * 2
    assert len({str(one) for one in positions}) == 2


def test_an_endpoint_for_traces_alone_is_used_as_it_is(receiver: Receiver, tmp_path: Path) -> None:
    receiver.spans.clear()
    exported = tracing("http://127.0.0.1:9/nowhere", f"{receiver.url}/v1/traces")
    event = compose(UPLOADED, source="/functions/a", subject=SUBJECT)
    asyncio.run(publish(dataclasses.replace(services(tmp_path), tracing=exported), event))
    exported.flush()
    assert [one.name for one in receiver.spans] == ["a"]


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "00-1-2-01",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
    ],
)
def test_what_is_no_traceparent_is_none(traceparent: str | None) -> None:
    assert Position.read(traceparent) is None


def test_an_event_whose_traceparent_is_none_is_handled_without_a_span(
    receiver: Receiver, traced: Tracing, tmp_path: Path
) -> None:
    event = compose(UPLOADED, source="/tests", subject=SUBJECT).with_attributes(traceparent="00-1-2-01")
    assert ask(Next("admit"), dataclasses.replace(services(tmp_path), tracing=traced), event).status_code == 200
    asyncio.run(publish(dataclasses.replace(services(tmp_path), tracing=traced), event))
    traced.flush()
    assert receiver.spans == []


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    assert tracing(None) is UNTRACED and isinstance(UNTRACED, NoTracing)
    # Alone: libraries of others, such as redis, look by themselves whether OpenTelemetry is there.
    code = (
        "import sys; from layerscope.functions.runtime.tracing import tracing; tracing(None);"
        "print([one for one in sys.modules if one.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
