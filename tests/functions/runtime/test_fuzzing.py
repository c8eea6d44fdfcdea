"""Thousands of made-up events, keys and questions: nothing is a bug, nothing hangs, and no parameter shows more.

An ordinary run makes 5,000 examples; LAYERSCOPE_EXAMPLES=100000 makes as many. Each test counts the examples that it
has really made, and there are as many as its share.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

import httpx
import numpy as np
import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import given as examples
from hypothesis import strategies as st
from schemathesis.python.asgi import get_client
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from torch import nn

from layerscope.events.cloudevent import InvalidCloudEvent, compose
from layerscope.events.kafka import KafkaMessage, from_record, to_record
from layerscope.events.notification import InvalidNotification, read_notification
from layerscope.functions.admit.func import Admit
from layerscope.functions.announce.func import new as new_announce
from layerscope.functions.evaluation.func import new as new_evaluation
from layerscope.functions.query.func import QueryFunction
from layerscope.functions.runtime.asgi import EventFunction, Receive, Scope, Send
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services, embedded
from layerscope.models.safe_form import pack
from layerscope.schemas import keys
from layerscope.schemas.events import ModelUploaded
from layerscope.schemas.identity import Identity, KeyRefused, identify, subject_of_key
from layerscope.schemas.products import declared_products
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from layerscope.stores.directory_store import key_of, name_of
from layerscope.stores.object_store import KEY_BYTES
from tests.functions.analysed import Given, analyse
from tests.functions.asking import started
from tests.functions.bucket import services
from tests.functions.inference_answers import Inference
from tests.stores.exact_vector_store import NumpyStore

TOTAL = int(os.environ.get("LAYERSCOPE_EXAMPLES", "5000"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 * max(1, TOTAL // 20_000))]

SHARES = {"binary": 0.2, "structured": 0.1, "records": 0.15, "notifications": 0.1, "keys": 0.33, "queries": 0.1}
OPERATIONS = 0.02
"""The share of what is made from the OpenAPI document, the dearest."""
HANG_SECONDS = 1.0

made: dict[str, int] = {}
slowest: dict[str, float] = {}


def count(kind: str, examine: Callable[..., None], /, **strategies: st.SearchStrategy[Any]) -> None:
    """Examine as many examples as are the share of this kind, and see that there were as many."""
    share = math.ceil(TOTAL * SHARES[kind])
    made[kind] = 0

    @settings(
        max_examples=share,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @examples(**strategies)
    def examined(**drawn: Any) -> None:
        made[kind] += 1
        examine(**drawn)

    examined()
    print(f"{made[kind]} {kind}")
    assert made[kind] >= share


def timed(kind: str, ask: Callable[[], Any]) -> Any:
    """Ask; what takes a second does so because of the machine's other work, or again."""
    start = time.perf_counter()
    answer = ask()
    seconds = time.perf_counter() - start
    if seconds > HANG_SECONDS:
        start = time.perf_counter()
        ask()
        seconds = min(seconds, time.perf_counter() - start)
    slowest[kind] = max(slowest.get(kind, 0.0), seconds)
    assert seconds <= HANG_SECONDS
    return answer


@dataclass
class Answer:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Asked:
    """Calls ASGI applications one after the other, as a server does but without one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def post(self, function: EventFunction, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
        return self._called(function.handle, {"method": "POST", "path": "/", "headers": headers}, body)

    def get(self, function: QueryFunction, target: str, accept: str = "*/*") -> Answer:
        path, _, query = target.partition("?")
        scope = {
            "method": "GET",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), (b"accept", accept.encode())],
            "scheme": "http",
            "server": ("localhost", 80),
            "root_path": "",
        }
        return self._called(application(function), scope, b"")

    def _called(self, app: Callable[[Scope, Receive, Send], Any], scope: dict[str, Any], body: bytes) -> Answer:
        answer, pending = Answer(), [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], dict(message["headers"])
            else:
                answer.body += message.get("body", b"")

        self._loop.run_until_complete(app({"type": "http", "http_version": "1.1", **scope}, receive, send))
        return answer


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    found = Asked()
    yield found
    found.close()


# Events --------------------------------------------------------------------------------------------------------------

ODD_TEXT = st.sampled_from(
    ["", " ", "\0", "\n", "%00", "..%2f", "a" * 300, "é", "\u202e", "1e999", "-0", "null"]
) | st.text(max_size=12)
# Flat, for a recursive strategy takes ten times as long to draw from; `tests/events` draws nested values.
JSON_VALUES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        2**63,
        10**400,
        0.5,
        1e308,
        "",
        "x",
        [],
        [[]],
        ["x", 1],
        {},
        {"x": None},
        [[[[{"": []}]]]],
    ]
) | st.text(max_size=5)
ODD_BYTES = ODD_TEXT.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=8)
KEYS = (
    st.sampled_from(["tiny/net/1.pth", "tiny/model_net_v1.onnx", "tiny/net/1.history.json", "../../1.pth"]) | ODD_TEXT
)
TYPES = st.sampled_from([ModelUploaded.type, "io.layerscope.model.removed.v1", "t"])
DATA = (
    st.fixed_dictionaries(
        {"bucket": st.just(keys.MODELS) | JSON_VALUES, "key": KEYS | JSON_VALUES, "etag": st.just("e") | JSON_VALUES},
        optional={"size": st.integers() | JSON_VALUES, "sequencer": JSON_VALUES, "version_id": JSON_VALUES},
    )
    | JSON_VALUES
)
BODIES = DATA.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)
CONTENT_TYPES = (
    st.sampled_from([b"application/json", b"application/json; charset=utf-8", b"text/plain", b""]) | ODD_BYTES
)
GOOD = st.fixed_dictionaries(
    {
        b"ce-specversion": st.just(b"1.0"),
        b"ce-id": st.just(b"1"),
        b"ce-source": st.just(b"/s"),
        b"ce-type": TYPES.map(str.encode),
        b"content-type": CONTENT_TYPES,
    },
    optional={b"ce-subject": KEYS.map(quote).map(str.encode), b"ce-time": st.just(b"2026-11-21T10:00:00Z")},
)
ODD = st.dictionaries(
    st.sampled_from(
        [b"ce-id", b"ce-type", b"ce-subject", b"ce-time", b"ce-", b"ce-lane", b"ce-traceparent", b"ce-specversion"]
    )
    | st.binary(max_size=6),
    ODD_BYTES,
    max_size=2,
)
NO_BUG = {200, 204, 400, 413, 422}


@pytest.fixture(scope="module")
def receivers(tmp_path_factory: pytest.TempPathFactory) -> list[EventFunction]:
    """Return functions over an empty bucket, where no event comes as far as the worker."""
    empty = services(tmp_path_factory.mktemp("empty"))
    empty.log.ensure_topics()
    functions: list[EventFunction] = [Admit(), new_evaluation(), new_announce()]
    for function in functions:
        EventFunction.attach(function, empty)
    return functions


def check_answers(
    asked: Asked, receivers: list[EventFunction], headers: list[tuple[bytes, bytes]], body: bytes, kind: str
) -> None:
    for function in receivers:
        answer = timed(kind, lambda function=function: asked.post(function, headers, body))
        assert answer.status in NO_BUG, answer.body
        assert (answer.status == 204) == (not answer.body)
        if answer.status >= 400:
            assert not [name for name in answer.headers if name.startswith(b"ce-")]
            assert len(answer.body) <= 1024


def test_no_binary_event_is_a_bug(asked: Asked, receivers: list[EventFunction]) -> None:
    def examine(good: dict[bytes, bytes], odd: dict[bytes, bytes], body: bytes) -> None:
        check_answers(asked, receivers, list({**good, **odd}.items()), body, "binary")

    count("binary", examine, good=GOOD, odd=ODD, body=BODIES)


def test_no_structured_event_is_a_bug(asked: Asked, receivers: list[EventFunction]) -> None:
    names = st.sampled_from(
        ["id", "source", "type", "subject", "time", "data", "data_base64", "datacontenttype", "lane"]
    )

    def examine(members: dict[str, Any], data: Any, kind: str, cut: int, content_type: str) -> None:
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": kind, "data": data, **members}
        body = json.dumps(event).encode()
        headers = [(b"content-type", content_type.encode())]
        check_answers(asked, receivers, headers, body[:-cut] if cut else body, "structured")

    count(
        "structured",
        examine,
        members=st.dictionaries(names | st.text(max_size=4), JSON_VALUES | ODD_TEXT, max_size=2),
        data=DATA,
        kind=TYPES,
        cut=st.sampled_from([0, 0, 0, 1, 9]),
        content_type=st.sampled_from(
            ["application/cloudevents+json", "application/cloudevents", "application/cloudevents+avro"]
        ),
    )


def test_whatever_lies_in_a_topic_is_an_event_or_refused_or_none() -> None:
    names = st.sampled_from(
        ["ce_id", "ce_source", "ce_type", "ce_specversion", "ce_subject", "ce_time", "content-type"]
    )
    good = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]

    def examine(key: bytes | None, value: bytes | None, odd: list[tuple[str, bytes]], whole: bool) -> None:
        message = KafkaMessage(key, value, (*(good if whole else []), *odd))
        try:
            event = timed("records", lambda: from_record(message))
        except InvalidCloudEvent as error:
            assert error.faults and "\n" not in str(error)
            return
        if event is not None:
            assert from_record(to_record(event)) == event

    count(
        "records",
        examine,
        key=st.none() | ODD_BYTES,
        value=st.none() | BODIES,
        odd=st.lists(st.tuples(names | st.text(max_size=5), CONTENT_TYPES), max_size=3),
        whole=st.booleans(),
    )


def test_whatever_a_store_notifies_is_read_or_refused() -> None:
    stored = st.fixed_dictionaries(
        {"key": KEYS.map(quote_plus) | ODD_TEXT | JSON_VALUES, "eTag": st.just("e") | JSON_VALUES},
        optional={"size": JSON_VALUES, "sequencer": ODD_TEXT, "versionId": JSON_VALUES},
    )
    record = st.fixed_dictionaries(
        {
            "eventSource": st.sampled_from(["minio:s3", "aws:s3", "x"]),
            "eventName": st.sampled_from(["s3:ObjectCreated:Put", "ObjectRemoved:Delete", "x"]),
            "s3": st.fixed_dictionaries(
                {"bucket": st.just({"name": keys.MODELS}) | JSON_VALUES, "object": stored | JSON_VALUES}
            ),
        }
    )

    def examine(records: Any, cut: int) -> None:
        body = json.dumps({"Records": records}).encode()
        try:
            facts = timed("notifications", lambda: read_notification(body[:-cut] if cut else body))
        except InvalidNotification as error:
            assert "\n" not in str(error)
            return
        for fact in facts:
            told = compose(fact, source="/s", subject=subject_of_key(fact.key))
            assert from_record(to_record(told)) == told

    count(
        "notifications",
        examine,
        records=st.lists(record | JSON_VALUES, max_size=3),
        cut=st.sampled_from([0, 0, 0, 0, 1, 30]),
    )


# Keys ----------------------------------------------------------------------------------------------------------------

NAME_LIKE = st.sampled_from(["tiny", "net", "1", "2.0.1", "model_a_v2", "a_v1", "A-b", "n" * 64]) | st.text(
    "aZ0._-", max_size=4
)
PIECES = (
    st.sampled_from(
        ["", ".", "..", "%", "%%", "%+", "\0", "%00", "..%2f", "\n", " ", "+", "é", "e\u0301", "n" * 210, "n" * 65]
    )
    | st.text(max_size=4)
    | NAME_LIKE
)
ENDINGS = st.sampled_from(["", ".pth", ".PTH", ".pt", ".safetensors", ".onnx", ".history.json", ".tfevents", ".zip"])


def test_every_key_is_an_identity_or_refused_and_has_one_place_in_a_directory() -> None:
    places: dict[str, str] = {}

    def examine(pieces: Sequence[str], ending: str) -> None:
        key = "/".join(pieces) + ending
        try:
            found = timed("keys", lambda: identify(key))
        except KeyRefused as refused:
            assert str(refused).endswith(".") and len(str(refused)) < 1_024 and "\n" not in str(refused)
            assert subject_of_key(key).startswith("_refused/")
        else:
            assert Identity.parse(found.identity.subject) == found.identity == identify(key).identity
            assert subject_of_key(key) == found.identity.subject
            assert not {"..", ".", ""} & set(found.identity.subject.split("/"))
        compose(ModelUploaded(bucket=keys.MODELS, key=key, etag="e"), source="/s", subject=subject_of_key(key))
        if 0 < len(key.encode("utf-8", "surrogatepass")) <= KEY_BYTES:
            place = name_of(key)
            assert key_of(str(place)) == key
            assert not place.is_absolute() and ".." not in place.parts
            assert all(len(part.encode()) <= 255 for part in place.parts)
            assert places.setdefault(str(place), key) == key, "two keys in one place"

    pieces = st.lists(PIECES, min_size=1, max_size=4) | st.tuples(NAME_LIKE, NAME_LIKE, NAME_LIKE)
    count("keys", examine, pieces=pieces, ending=ENDINGS)


# Questions -----------------------------------------------------------------------------------------------------------

GOOD_MODEL, OTHER_MODEL, ELSEWHERE = "tiny/net/1", "tiny/net/2", "small/net/1"
WITHOUT_PICTURES = [
    one.declared.name
    for one in declared_products()
    if one.declared.name not in ("activation_maximization", "feature_activation")
]


@dataclass(frozen=True)
class System:
    """Three models that were analysed, and all that a plain request shows of them."""

    services: Services
    query: QueryFunction
    models: list[dict[str, Any]]
    layers: Mapping[str, list[str]]
    files: Mapping[str, set[str]]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, asked: Asked) -> System:
    found = replace(embedded(tmp_path_factory.mktemp("system")), vectors=NumpyStore())
    found.store.ensure_buckets()
    pixels = np.random.default_rng(0).integers(0, 200, (24, 8, 8, 1), np.uint8)
    for name, classes in (("tiny", 3), ("small", 2)):
        part = PartArrays(pixels, np.arange(24, dtype=np.int64) % classes)
        datasets.write(found.store, name, tuple("abc"[:classes]), {"test": part, "probe": part})
    torch.manual_seed(0)
    given = [
        Given(
            subject,
            pack(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, classes))),
            products=WITHOUT_PICTURES,
        )
        for subject, classes in ((GOOD_MODEL, 3), (OTHER_MODEL, 3), (ELSEWHERE, 2))
    ]
    analyse(found, *given, Given("tiny/text/1", b"these are no weights\n", products=()))
    query = started(found)

    def plain(path: str) -> Any:
        answer = asked.get(query, path)
        assert answer.status == 200, answer.body
        return answer.json()

    subjects = [one.subject for one in given]
    return System(
        found,
        query,
        plain("/models?limit=1000")["models"],
        {subject: [row["layer"] for row in plain(f"/models/{subject}/layers")["layers"]] for subject in subjects},
        {
            f"{subject}/{product}": {one["sha256"] for one in plain(f"/models/{subject}/products/{product}")["files"]}
            for subject in subjects
            for product in WITHOUT_PICTURES
        },
    )


def subject_of(row: Mapping[str, Any]) -> str:
    return f"{row['dataset']}/{row['model']}/{row['version']}"


INJECTIONS = [
    '" or 1==1',
    "net' or '1'='1",
    "%",
    "*",
    "net/../net",
    "..",
    "1;--",
    "null",
    "true",
    "[]",
    "nan",
    "inf",
    "-1",
    "1e9",
    "٣",
]
NAMES = st.sampled_from(["tiny", "small", "net", "1", "2", "text"]) | st.sampled_from(INJECTIONS) | ODD_TEXT
PRODUCTS = st.sampled_from([one.declared.name for one in declared_products()]) | NAMES
FILES = (
    st.sampled_from(["data.json", "data.json%00.png", "..%2fdata.json", "cka.npy", "grams.npy", "matrix.png"]) | NAMES
)
LAYERS = st.sampled_from(["0", "3", "0:1", "0%2f..", "3 "]) | NAMES
PARAMETERS: dict[str, st.SearchStrategy[str]] = {
    "k": st.integers(-2, 103).map(str) | NAMES,
    "metric": st.sampled_from(["cka", "deconfounded", "CKA"]) | NAMES,
    "min_accuracy": st.sampled_from(["0", "1", "0.3", "0.5", "-0.1", "1.01", "nan", "1e-300"]) | NAMES,
    "limit": st.integers(-1, 1001).map(str) | NAMES,
    "cursor": st.sampled_from(["|", "9999|z", "2026-11-21T00:00:00.000Z|tiny/net/1", "\uffff|\uffff"]) | NAMES,
    "dataset": NAMES,
    "state": st.sampled_from(["complete", "computing", "refused", "failed"]) | NAMES,
    "sha256": st.just("0" * 64) | NAMES,
    "a": st.sampled_from([GOOD_MODEL, ELSEWHERE]) | NAMES,
    "b": st.sampled_from([OTHER_MODEL, GOOD_MODEL]) | NAMES,
    "other": st.sampled_from([OTHER_MODEL, GOOD_MODEL]) | NAMES,
    "other_layer": LAYERS,
    "language": st.sampled_from(["en", "de", "ja"]) | NAMES,
    "format": st.just("json") | NAMES,
}

TAKEN = {
    "/models": ["dataset", "state", "limit", "cursor"],
    "/similar": ["metric", "k", "min_accuracy", "dataset"],
    "/search": ["metric", "min_accuracy"],
    "/compare": ["metric"],
    "/description": ["metric", "other", "other_layer", "language"],
}


@st.composite
def targets(draw: st.DrawFn) -> str:
    """Draw a path with a query string, most of it as it should be."""
    good = draw(st.sampled_from([True, True, True, False]))
    subjects = st.sampled_from([GOOD_MODEL, OTHER_MODEL, ELSEWHERE]) if good else st.tuples(NAMES, NAMES, NAMES)
    model = draw(
        subjects.map(lambda parts: parts if isinstance(parts, str) else "/".join(quote(one, safe="") for one in parts))
    )
    product, file, layer = (quote(draw(one), safe="%") for one in (PRODUCTS, FILES, LAYERS))
    path = draw(
        st.sampled_from(
            [
                "/models",
                "/models",
                "/refusals",
                "/compare",
                f"/models/{model}",
                f"/models/{model}/layers",
                f"/models/{model}/products/{product}",
                f"/models/{model}/products/{product}/{file}",
                f"/models/{model}/layers/{layer}",
                f"/models/{model}/layers/{layer}/channels/{file}",
                f"/models/{model}/layers/{layer}/similar",
                f"/models/{model}/layers/{layer}/similar",
                f"/models/{model}/layers/{layer}/similar/description",
                f"/net/1/{layer}/search",
                f"/net/2/{layer}/search",
                f"/{model}/search",
                f"/{product}/{file}",
            ]
        )
    )
    takes = next((names for end, names in TAKEN.items() if path.endswith(end)), ["format"])
    asked_for = draw(st.lists(st.sampled_from(takes if good else sorted(PARAMETERS)), max_size=3))
    asked_for += ["a", "b"] if path == "/compare" and good else []
    pairs = [f"{name}={quote(draw(PARAMETERS[name]), safe='')}" for name in asked_for]
    return path + ("?" + "&".join(pairs) if pairs else "")


def parameters_of(target: str) -> dict[str, str]:
    return dict(parse_qsl(target.partition("?")[2], keep_blank_values=True))


def check_nothing_widened(asked: Asked, system: System, target: str, answer: Answer) -> None:
    """Compare what was answered with what a plain request shows, and with what was asked for."""
    path, parameters = target.partition("?")[0], parameters_of(target)
    if path == "/models":
        rows = answer.json()["models"]
        assert all(row in system.models for row in rows)
        assert len(rows) == len({subject_of(row) for row in rows}) <= int(parameters.get("limit", 100))
        for name in ("dataset", "state"):
            assert name not in parameters or {row[name] for row in rows} <= {parameters[name]}
    elif path.endswith("/similar"):
        check_hits(asked, system, path, parameters, answer.json())
    elif path == "/compare":
        told = answer.json()
        for side in "ab":
            assert told[side] == parameters[side]
            assert told[f"layers_{side}"] == system.layers[parameters[side]]
    elif path.endswith("/layers"):
        told = answer.json()
        assert [row["layer"] for row in told["layers"]] == system.layers[subject_of(told)]
    elif "/products/" in path and path.count("/") == 7:
        _, _, dataset, model, version, _, product, _ = unquote(path).split("/", 7)
        assert answer.headers[b"etag"].decode().strip('"') in system.files[f"{dataset}/{model}/{version}/{product}"]


def check_hits(asked: Asked, system: System, path: str, parameters: Mapping[str, str], told: Any) -> None:
    metric = parameters.get("metric", "deconfounded")
    plain = asked.get(system.query, f"{path}?metric={metric}&k=100")
    rows = told["hits"]
    assert told["metric"] == metric
    assert all(row in plain.json()["hits"] for row in rows)
    assert len(rows) <= int(parameters.get("k", 10))
    subject = "/".join(unquote(path).split("/")[2:5])
    dataset = subject.split("/")[0]
    for row in rows:
        assert subject_of(row) != subject and row["dataset"] == dataset
        assert row["test_accuracy"] >= float(parameters.get("min_accuracy") or 0)


def test_no_question_is_a_bug_or_shows_more_than_a_plain_one(asked: Asked, system: System) -> None:
    statuses: dict[int, int] = {}

    def examine(target: str, page: bool) -> None:
        accept = "text/html" if page else "*/*"
        answer = timed("queries", lambda: asked.get(system.query, target, accept))
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status in (200, 404, 409, 422), (target, answer.body[:500])
        assert answer.headers[b"x-content-type-options"] == b"nosniff"
        if answer.headers[b"content-type"] == b"application/json":
            if answer.status == 200:
                check_nothing_widened(asked, system, target, answer)
            else:
                ErrorAnswer.model_validate_json(answer.body)

    count("queries", examine, target=targets(), page=st.sampled_from([False, False, False, True]))
    print(statuses)
    assert statuses[200] > made["queries"] / 20  # else the questions never come past the door


def test_what_the_openapi_document_allows_or_forbids_is_answered_as_it_says(system: System) -> None:
    served = application(started(system.services, Inference().client()))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # it was started over the directory
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await served(scope, receive, send)

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    made["operations"] = 0
    asking = sum(bool(list(one.iter_parameters())) for one in operations)  # the others have one example each
    share = math.ceil(TOTAL * OPERATIONS / asking)
    with get_client(app) as client:
        for operation in operations:

            @settings(max_examples=share, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @examples(case=operation.as_strategy())
            def examined(case: schemathesis.Case) -> None:
                made["operations"] += 1
                answer = timed("operations", lambda: case.call(session=client))
                assert answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR
                # Only who gave a cursor can tell whether it is one; what several parameters mean together, no schema says.
                opaque = b"bad-cursor" in answer.content or b"contradiction" in answer.content
                opaque = opaque or case.path.startswith("/replays")
                # A model of this name in the older form's path is read as a path of models, which comes first.
                other = case.path.startswith("/{model_id}/") and case.path_parameters["model_id"] == "models"
                excluded = [positive_data_acceptance] if opaque or other else []
                if case.path.endswith("/predict"):  # what a picture is, no schema says
                    excluded = [positive_data_acceptance, negative_data_rejection]
                case.validate_response(answer, excluded_checks=excluded)

            examined()
    print(f"{made['operations']} over {len(operations)} operations; slowest of each kind: {slowest}")
    assert made["operations"] >= TOTAL * OPERATIONS


def test_the_shares_are_the_whole() -> None:
    assert sum(SHARES.values()) + OPERATIONS >= 1
