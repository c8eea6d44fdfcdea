"""What is sent to a function that should not be: over a socket to a real process, as an event, and in a key.

Each input, what it comes to, and the test that shows it:

    not an event, unknown specversion, broken body    400     test_handler
    batches, formats, headers and data that are odd   400     tests/events/test_http, tests/events/test_kafka
    a type, or data of a type, that nobody expects    422     here; of products only the subject counts
    64 MiB of body                                    413     here: in 50 ms, with 2 MiB
    a head without end, or too large                  400     here
    a body half-sent, or byte by byte                 408     here
    lengths that contradict each other                400     here: closed, and what follows is no request
    what is no HTTP, WebSockets, CONNECT              400..   here: the next request is answered
    a GET with a body, a long URI, a strange Host     4xx     here, test_query_guard
    keys: %00, ..%2f, 1,024 bytes, newline, leading
      slash, NFC and NFD, markup, spaces, a plus      refused here: listed with the rule, in JSON and as a page
    keys that are not UTF-8                           422     here, tests/events/test_notification
    100 records in a notification, foreign buckets    events  here, tests/events/test_notification
    sizes that lie in the event                       passed  test_hard_models: the object's own count
    bombs, pickles, truncated and foreign files       refused tests/models/formats, test_model_refusals
    NaN, one class, 5,000 layers, tuples, gaps ...    told    test_hard_models
    markup in names of classes                        shown   test_pages_in_browser
    filters of the vector store                       quoted  tests/contracts/test_vector_store, test_fuzzing
    liveness during a long job                        100 ms  here
    torrents of requests, no key, other hosts         4xx     test_query_guard
    secrets in answers, logs, events, products, pages none    test_secrets, tests/services
    processes killed by what they compute             500     test_worker, test_sandbox
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import httpx
import pytest

from layerscope.events import http as binding
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.kafka import from_record
from layerscope.events.topics import EVENTS
from layerscope.functions.admit.func import Admit
from layerscope.functions.announce.func import new as new_announce
from layerscope.functions.replay.func import new as new_replay
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.request_body import BODY_SECONDS
from layerscope.functions.runtime.request_head import HEAD_BYTES, HEAD_SECONDS
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.events import ModelRefused, ModelRemoved, ModelUploaded
from layerscope.schemas.identity import RULE
from tests.functions.asking import run
from tests.functions.bucket import services

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
HOST = b"Host: localhost\r\n"
NEXT = b"GET /health/liveness HTTP/1.1\r\n" + HOST + b"\r\n"
BODY = 64 * 1024 * 1024
JOB_SECONDS = int(os.environ.get("LAYERSCOPE_JOB_SECONDS", "3"))


@dataclass(frozen=True)
class Served:
    """A function as a process of its own, whose services do not answer."""

    process: subprocess.Popen[bytes]
    port: int

    def connect(self, seconds: float = 5) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def talk(self, *sent: bytes, seconds: float = 5) -> bytes:
        """Return what is answered until the connection ends; where it stays open, that is a TimeoutError."""
        with self.connect(seconds) as connection:
            for part in sent:
                connection.sendall(part)
            return all_of(connection)

    def liveness(self) -> float:
        """Return the seconds until the process says that it is alive."""
        start = time.perf_counter()
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        asked.request("GET", "/health/liveness")
        assert asked.getresponse().status == httpx.codes.OK
        asked.close()
        return time.perf_counter() - start

    def peak_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def all_of(connection: socket.socket) -> bytes:
    got = b""
    while part := connection.recv(65_536):
        got += part
    return got


@contextmanager
def served(*module: str) -> Iterator[Served]:
    """Start a function; of the words of its module and arguments, ADDRESS is where it shall listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nowhere = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    environment = {"PATH": os.environ["PATH"], **nowhere, "LISTEN_ADDRESS": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", *(environment["LISTEN_ADDRESS"] if word == "ADDRESS" else word for word in module)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        function, until = Served(process, port), time.monotonic() + 60
        while True:
            try:
                function.liveness()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, f"{module} does not start"
                time.sleep(0.05)
        yield function
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def events_function() -> Iterator[Served]:
    with served("layerscope.functions", "evaluation") as started:
        yield started


@pytest.fixture(scope="module")
def query() -> Iterator[Served]:
    with served("layerscope.functions", "query") as started:
        yield started


@pytest.fixture(scope="module", params=["events", "queries"])
def function(request: pytest.FixtureRequest, events_function: Served, query: Served) -> Served:
    return events_function if request.param == "events" else query


# Over a socket -------------------------------------------------------------------------------------------------------

HEADS = {
    "announced": b"Content-Length: %d\r\n" % BODY,
    "in chunks": b"Transfer-Encoding: chunked\r\n",
    "expecting to go on": b"Content-Length: %d\r\nExpect: 100-continue\r\n" % BODY,
}


def flood(function: Served, head: bytes) -> tuple[float, bytes]:
    """Send 64 MiB, or as much as is taken; returns the seconds to the first byte of the answer, and the answer."""
    block = b"x" * 65_536
    if b"chunked" in head:
        block = b"10000\r\n" + block + b"\r\n"
    with function.connect() as connection:
        start, answered, answer, sent = time.perf_counter(), 0.0, b"", 0
        connection.sendall(b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n")
        connection.setblocking(False)
        while sent < BODY:
            readable, writable, _ = select.select([connection], [connection], [], 10)
            try:
                if readable:
                    part = connection.recv(65_536)
                    answered = answered or time.perf_counter() - start
                    answer += part
                if writable:
                    sent += connection.send(block)
            except (BrokenPipeError, ConnectionResetError):
                with suppress(OSError):  # an answer that came between the look and the failure is there to be read
                    answer += connection.recv(65_536)
                    answered = answered or time.perf_counter() - start
                break
    return answered, answer


@pytest.mark.parametrize("how", HEADS)
def test_64_mib_are_refused_at_once_and_take_no_memory(function: Served, how: str) -> None:
    function.liveness()
    before = function.peak_bytes()
    tries = [flood(function, HEADS[how]) for _ in range(3)]
    while min(seconds for seconds, _ in tries) > 0.050 and len(tries) < 30:
        tries.append(flood(function, HEADS[how]))
    assert all(answer.startswith(b"HTTP/1.1 413 ") for _, answer in tries)
    grown, fastest = function.peak_bytes() - before, min(seconds for seconds, _ in tries)
    print(f"64 MiB {how}: refused in {fastest * 1000:.1f} ms, {grown / 2**20:.2f} MiB grown")
    assert fastest <= 0.050  # the best of them: the others tell of the machine's other work
    assert grown <= 2 * 2**20


SMUGGLED = {
    "a length beside chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks beside a length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length twice": b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": b"Content-Length: 5, 6\r\n\r\nhello",
    "a length below nought": b"Content-Length: -1\r\n\r\nhello",
    "a length with a sign": b"Content-Length: +5\r\n\r\nhello",
    "a length beyond all numbers": b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "a hexadecimal length": b"Content-Length: 0x5\r\n\r\nhello",
    "unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"X: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a size": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a header that ends in LF": b"Content-Length: 0\n\n",
    "a header with NUL": b"X: a\0b\r\n\r\n",
}


@pytest.mark.parametrize("how", SMUGGLED)
def test_lengths_that_can_be_read_two_ways_end_the_connection(function: Served, how: str) -> None:
    answer = function.talk(b"POST / HTTP/1.1\r\n" + HOST + SMUGGLED[how] + NEXT)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1, "what follows was taken for a request"


ODD = {
    "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "NUL for ever": b"\0" * 1000,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "another scheme": b"GET gopher://x/x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "CONNECT": b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "an invented method": b"SMUGGLE / HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in the path": b"GET /\xff\x80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL, dots and slashes in the path": b"GET /%00%ff/..%2f%2e%2e HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "bytes in a header": b"GET /x HTTP/1.1\r\n" + HOST + b"Accept: \xff\r\nConnection: close\r\n\r\n",
    "a WebSocket": b"GET /x HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "a URI of 200 kB": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "headers of 1 MiB": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2**20 + b"\r\n\r\n",
    "100,000 headers": b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("how", ODD)
def test_what_is_hardly_http_is_the_senders_fault_and_the_next_is_answered(function: Served, how: str) -> None:
    try:
        answer = function.talk(ODD[how])
    except (BrokenPipeError, ConnectionResetError):
        answer = b""  # closed while we were still sending
    assert answer.startswith(b"HTTP/1.1 4") or (not answer and len(ODD[how]) > HEAD_BYTES), answer[:200]
    function.liveness()


def test_a_head_too_large_is_told_so(function: Served) -> None:
    with function.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"X: ")
        for _ in range(HEAD_BYTES // 1024):
            connection.sendall(b"y" * 1024)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"at most 65536 bytes.")


SLOW = (
    (b"", b""),
    (b"GET / HT", b"did not arrive within 15 s."),
    (b"POST / HTTP/1.1\r\nHost: local", b"did not arrive within 15 s."),
)


def test_requests_without_end_are_ended_and_hold_up_nobody(events_function: Served, query: Served) -> None:
    def waited(function: Served, sent: bytes, dribbled: bytes = b"") -> tuple[float, bytes]:
        start = time.monotonic()
        with function.connect(HEAD_SECONDS + 20) as connection:
            connection.sendall(sent)
            for byte in dribbled:
                if select.select([connection], [], [], 1)[0]:
                    break
                connection.sendall(bytes([byte]))
            return time.monotonic() - start, all_of(connection)

    with ThreadPoolExecutor(16) as threads:
        silent = [
            (expected, threads.submit(waited, function, sent))
            for function in (events_function, query)
            for sent, expected in SLOW
        ]
        silent += [
            (b"did not arrive within 15 s.", threads.submit(waited, function, b"GET / HTTP/1.1\r\nX: ", b"y" * 60))
            for function in (events_function, query)
        ]
        length = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n"
        bodies = [threads.submit(waited, events_function, length, dribbled) for dribbled in (b"", b"{" * 60)]
        alive = [function.liveness() for _ in range(5) for function in (events_function, query)]
        for expected, call in silent:
            seconds, answer = call.result()
            assert seconds < HEAD_SECONDS + 10
            assert answer.endswith(expected)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        for call in bodies:
            seconds, answer = call.result()
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert answer.endswith(f"the body did not arrive within {BODY_SECONDS:g} s".encode())
            assert seconds < BODY_SECONDS + 10
    assert min(alive) <= 0.100


def test_200_connections_that_say_nothing_keep_nobody_waiting(function: Served) -> None:
    held = [function.connect() for _ in range(200)]
    try:
        assert min(function.liveness() for _ in range(3)) <= 0.100
    finally:
        for one in held:
            one.close()


def probed_while_it_computes(busy: Served, idle: Served) -> tuple[list[float], list[float]]:
    """Return how long each probe of liveness took during one job, the fastest first; and those of an idle function."""
    data = ModelUploaded(bucket=keys.MODELS, key="tiny/net/1.pth", etag="e", size=JOB_SECONDS)
    headers, body = binding.to_binary(compose(data, source="/tests", subject="tiny/net/1"))
    with ThreadPoolExecutor(1) as thread:
        start = time.monotonic()
        url = f"http://127.0.0.1:{busy.port}/"
        job = thread.submit(httpx.post, url, headers=headers, content=body, timeout=JOB_SECONDS + 60)
        alive, control = [], []
        while not job.done():
            alive.append(busy.liveness())
            control.append(idle.liveness())
            time.sleep(0.05)
        assert job.result().status_code == 204
        assert time.monotonic() - start >= JOB_SECONDS
    return sorted(alive), sorted(control)


def late(probes: list[float]) -> int:
    return sum(seconds > 0.100 for seconds in probes)


def test_a_function_is_alive_while_it_computes(events_function: Served, tmp_path: Path) -> None:
    with served("tests.functions.runtime.busy", str(tmp_path), "ADDRESS") as busy:
        for _ in range(5):  # the best of them: the others tell of the machine's other work
            alive, control = probed_while_it_computes(busy, events_function)
            more = late(alive) - late(control)
            if more <= len(alive) // 50:
                break
    print(f"{len(alive)} asked in {JOB_SECONDS} s: median {alive[len(alive) // 2]:.4f} s, longest {alive[-1]:.4f} s")
    print(f"late {late(alive)}, of an idle function {late(control)}")
    assert len(alive) >= JOB_SECONDS
    assert more <= max(1, len(alive) // 50)  # one in fifty, besides those that wait for the machine's other work


# As an event ---------------------------------------------------------------------------------------------------------


def without_worker(function: EventFunction, made: Services) -> EventFunction:
    """Give a function its services, and start no worker: these events never come to one."""
    EventFunction.attach(function, made)
    return function


def answers(function: EventFunction, *sent: tuple[dict[str, str], bytes]) -> list[httpx.Response]:
    async def posted() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=application(function))
        async with asyncio.timeout(300), httpx.AsyncClient(transport=transport, base_url="http://function") as client:
            return [await client.post("/", headers=headers, content=body) for headers, body in sent]

    return asyncio.run(posted())


@pytest.fixture
def made(tmp_path: Path) -> Services:
    found = services(tmp_path)
    found.log.ensure_topics()
    return found


def about(kind: str, data: bytes = b"{}", subject: str = "tiny/net/1") -> tuple[dict[str, str], bytes]:
    return binding.to_binary(
        CloudEvent(
            {"id": "1", "source": "/t", "type": kind, "subject": subject, "datacontenttype": "application/json"}, data
        )
    )


@pytest.mark.parametrize(
    "sent",
    [
        about("com.example.order.placed"),
        about(ModelRemoved.type, b'{"bucket": "models", "key": "tiny/net/1.pth"}'),
        about(ModelUploaded.type, b"[]"),
        about(ModelUploaded.type, b'{"bucket": "models"}'),
        about(ModelUploaded.type, b'{"bucket": 3, "key": ["a"], "etag": null}'),
    ],
)
def test_a_type_or_data_that_admit_does_not_expect_is_unprocessable(
    made: Services, sent: tuple[dict[str, str], bytes]
) -> None:
    (answer,) = answers(without_worker(Admit(), made), sent)
    assert (answer.status_code, answer.headers["kne-errorclass"]) == (422, "InvalidEventData")
    assert 0 < len(answer.text) <= 1024 and "\n" not in answer.text


def test_headers_that_are_not_utf8_are_the_senders_fault(made: Services) -> None:
    headers, body = about(ModelUploaded.type)
    for subject in ("%FF", "%ED%A0%80"):
        (answer,) = answers(without_worker(Admit(), made), ({**headers, "ce-subject": subject}, body))
        assert (answer.status_code, answer.text.endswith("is not UTF-8")) == (400, True), answer.text


def test_replay_passes_over_what_is_no_business_of_its(made: Services) -> None:
    (answer,) = answers(without_worker(new_replay(), made), about("com.example.order.placed"))
    assert answer.status_code in (204, 400, 422)


# In a key ------------------------------------------------------------------------------------------------------------

PARTS = {
    "NUL": "tiny/net/1\0.pth",
    "an encoded NUL": "tiny/net/1%00.pth",
    "a way up": "../../etc/passwd",
    "an encoded way up": "tiny/..%2f..%2fetc/1.pth",
    "a way up in between": "tiny/../net/1.pth",
    "a leading slash": "/tiny/net/1.pth",
    "two slashes": "tiny//net/1.pth",
    "a newline": "tiny/net/1\n.pth",
    "a return": "tiny/net\r\nX-Evil: 1/1.pth",
    "a space": "tiny/my net/1.pth",
    "a plus": "tiny/a+b/1.pth",
    "composed": unicodedata.normalize("NFC", "tiny/größe/1.pth"),
    "decomposed": unicodedata.normalize("NFD", "tiny/größe/1.pth"),
    "right to left": "tiny/net/\u202e1.pth",
    "fullwidth": "tiny/\uff4eet/1.pth",
    "markup": "tiny/<script>alert(1)</script>/1.pth",
    "a quote": 'tiny/"or""=="/1.pth',
    "1,024 bytes": "tiny/" + "n" * (1024 - len("tiny//1.pth")) + "/1.pth",
    "1,024 bytes of umlauts": "ü" * 512,
    "no extension": "tiny/net/1",
    "a name that hides": "tiny/.net/1.pth",
    "a reserved name": "_refused/net/1.pth",
}


def notification(key: str, **other: object) -> bytes:
    stored = {"key": quote_plus(key), "size": 1, "eTag": "e", **other}
    record = {
        "eventSource": "minio:s3",
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": keys.MODELS}, "object": stored},
    }
    return json.dumps({"EventName": "s3:ObjectCreated:Put", "Key": f"models/{key}", "Records": [record]}).encode()


def announced(made: Services) -> list[CloudEvent]:
    told = [from_record(one) for one in made.log.backlog(EVENTS, "nobody", start="earliest")]
    return [one for one in told if one is not None]


@pytest.mark.parametrize("how", PARTS)
def test_an_odd_key_is_announced_refused_listed_and_shown(made: Services, how: str) -> None:
    # Given an object under such a key, and its notification
    key = PARTS[how]
    made.store.put(keys.MODELS, key, b"weights")
    (answer,) = answers(without_worker(new_announce(), made), ({"content-type": "application/json"}, notification(key)))
    assert answer.status_code == 204
    # When admit is given what was announced, as it travels
    (event,) = announced(made)
    (answer,) = answers(without_worker(Admit(), made), binding.to_binary(event))
    # Then it is refused with the rule
    assert (answer.status_code, answer.headers["ce-type"]) == (200, ModelRefused.type)
    assert answer.json()["refusal"]["code"] == "bad-key"
    # And listed under its very name, for programs and for people
    listed = run(made, lambda client: client.get("/refusals")).json()["refusals"]
    assert [(one["key"], RULE in one["message"]) for one in listed] == [(key, True)]
    page = run(made, lambda client: client.get("/refusals", headers={"accept": "text/html"}))
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    # And nothing was written outside the places of refused keys
    assert [one.key for one in made.store.list(keys.PRODUCTS)] == [keys.refused_key(key)]


def test_composed_and_decomposed_are_two_keys(made: Services) -> None:
    assert keys.refused_key(PARTS["composed"]) != keys.refused_key(PARTS["decomposed"])


@pytest.mark.parametrize("key", ["tiny/%FF/1.pth", "tiny/%C0%AF/1.pth", "tiny/%ED%A0%80/1.pth"])
def test_a_key_that_is_not_utf8_is_a_dead_letter_at_once(made: Services, key: str) -> None:
    body = notification("").replace(b'"key": ""', f'"key": "{key}"'.encode())
    (answer,) = answers(without_worker(new_announce(), made), ({"content-type": "application/json"}, body))
    assert (answer.status_code, answer.text) == (422, "a record's key is not UTF-8")
    assert announced(made) == []


def test_a_key_too_long_for_any_store_is_refused_like_the_others(made: Services) -> None:
    event = compose(ModelUploaded(bucket=keys.MODELS, key="n" * 5_000, etag="e"), source="/t", subject="_refused/x")
    (answer,) = answers(without_worker(Admit(), made), binding.to_binary(event))
    assert answer.json()["refusal"]["code"] == "bad-key"
    assert len(answer.json()["refusal"]["message"]) < 1_024


def test_of_a_hundred_records_each_is_told_once(made: Services) -> None:
    records = [json.loads(notification(f"tiny/net/{i}.pth"))["Records"][0] for i in range(100)]
    body = json.dumps({"Records": records}).encode()
    (answer,) = answers(without_worker(new_announce(), made), ({"content-type": "application/json"}, body))
    assert answer.status_code == 204
    assert {event.subject for event in announced(made)} == {f"tiny/net/{i}" for i in range(100)}
