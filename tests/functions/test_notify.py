"""Outcomes are told to a real receiver on this machine: once, in harmless words, and its address leaves nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from layerscope.dataplane import manifests
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.http import to_binary
from layerscope.events.memory import MemoryLog
from layerscope.functions.notify import once, webhook
from layerscope.functions.notify.func import Notify, new
from layerscope.functions.notify.wording import MOST_CHARACTERS, harmless
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import InvalidSettings, WebhookSettings
from layerscope.schemas import keys
from layerscope.schemas.events import (
    EventData,
    IndexUpdated,
    ModelAdmitted,
    ModelRefused,
    ModelUploaded,
    ProductFailed,
    ProductRefused,
    ProductRequested,
    ProductWritten,
    of_outcome,
)
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal
from layerscope.schemas.notifications import Notification
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.findings import Finding, Findings, FindingText
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.summary import Summary
from layerscope.stores.cache import MemoryCache
from layerscope.stores.directory_store import DirectoryStore
from layerscope.systems import MANIFESTS
from tests.functions.bucket import Bucket, add_dataset, evaluation
from tests.stores.exact_vector_store import NumpyStore

WHO = Identity("tiny", "net", "1")
NAME = {"dataset": "tiny", "model": "net", "version": "1"}
SECRET = "T000/B000/c4n4ry"
FAULT = "At 3 of 6 images class ‘<!channel> @here [x](http://evil.example)’ is taken for ‘yes’"


class Receiver:
    """Answers with the statuses in turn, the last one for ever; None: it hangs until the test ends."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = [200]
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.done = threading.Event()
        self.pause = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver.statuses[0] if len(receiver.statuses) == 1 else receiver.statuses.pop(0)
                time.sleep(receiver.pause)
                if status is None:
                    receiver.done.wait(30)
                    return
                self.send_response(status)
                self.send_header("location", f"/{SECRET}")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return (
            f"http://user:{SECRET.replace('/', '%2F')}@127.0.0.1:{self.server.server_address[1]}/{SECRET}?key={SECRET}"
        )

    @property
    def texts(self) -> list[str]:
        return [json.loads(body)["text"] for _, _, body in self.posts]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_URL", made.url)
    monkeypatch.setenv("LAYERSCOPE_URL", "https://layerscope.example.com/")
    yield made
    made.done.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Bucket:
    store = DirectoryStore(tmp_path)
    store.ensure_buckets()
    add_dataset(store)
    return Bucket(store, WHO)


def findings(*titles: str) -> Findings:
    def texts(title: str) -> tuple[FindingText, ...]:
        return (FindingText(language="en", title=title, text="…", action="…"),)

    found = tuple(
        Finding(kind="confused_pairs", cost=0.5, figures={}, rests_on="evaluation", texts=texts(one)) for one in titles
    )
    said = f"{len(titles)} things to look at" if titles else "Nothing wrong was found"
    none = np.empty(0, np.int32)
    return Findings(findings=found, checks=(), answers_mean_something=True, summary=texts(said), all_images=none)


def analysed(model: Bucket, *titles: str) -> CloudEvent:
    model.admit()
    model.write(evaluation(2 / 3))
    return event_of(of_outcome(model.write(findings(*titles))))


def event_of(data: EventData, subject: str = WHO.subject, **extensions: str) -> CloudEvent:
    return compose(data, source="/tests", subject=subject, **extensions)


async def sent(model: Bucket, *events: CloudEvent, function: Notify | None = None) -> list[tuple[int, str]]:
    """Return what a function answers to each event, one after the other, through func-python's host."""
    made = function or started(model)
    transport = httpx.ASGITransport(app=application(made), raise_app_exceptions=False)
    async with asyncio.timeout(120), httpx.AsyncClient(transport=transport, base_url="http://notify") as client:
        answers = []
        for event in events:
            headers, body = to_binary(event)
            answer = await client.post("/", headers=headers, content=body)
            answers.append((answer.status_code, answer.text))
        return answers


def started(model: Bucket) -> Notify:
    function = new()
    assert isinstance(function, Notify)
    function.attach(Services(model.store, NumpyStore(), MemoryCache(), MemoryLog(), Path("unused")))
    return function


def told(model: Bucket, *events: CloudEvent) -> list[tuple[int, str]]:
    return asyncio.run(sent(model, *events))


def markers(model: Bucket) -> list[Notification]:
    listed = model.store.list(keys.PRODUCTS, keys.NOTIFICATIONS)
    return [Notification.from_bytes(model.store.get(keys.PRODUCTS, one.key)) for one in listed]


def test_findings_are_told_with_the_accuracy_and_a_link(model: Bucket, receiver: Receiver) -> None:
    event = analysed(model, *(f"Fault {number}" for number in range(7)))
    assert told(model, event) == [(204, "")]
    assert receiver.texts == [
        "tiny/net/1: accuracy 66.7 % (95 % interval 0 % to 100 %). 7 things to look at:\n"
        "• Fault 0\n• Fault 1\n• Fault 2\n• Fault 3\n• Fault 4\n• and 2 more\n"
        "https://layerscope.example.com/models/tiny/net/1"
    ]
    ((path, headers, _),) = receiver.posts
    assert (path, headers["content-type"]) == (f"/{SECRET}?key={SECRET}", "application/json")
    assert headers["authorization"].startswith("Basic ")
    (marker,) = markers(model)
    assert (marker.state, marker.subject, marker.event) == ("told", WHO.subject, event.id)


def test_a_sound_model_is_told_as_one(model: Bucket, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSCOPE_URL", "/some/directory")
    assert told(model, analysed(model)) == [(204, "")]
    (text,) = receiver.texts
    assert text.endswith(". Nothing wrong was found") and "directory" not in text


def test_strangers_words_mention_nobody_and_link_nowhere(model: Bucket, receiver: Receiver) -> None:
    told(model, analysed(model, FAULT))
    line = receiver.texts[0].splitlines()[1]
    assert line == "• At 3 of 6 images class ‘‹!channel› ＠here (x)(http:∕∕evil.example)’ is taken for ‘yes’"
    assert not set("<>@[]`\n") & set(harmless("<>@[]`\n\r://" * 200))
    assert len(harmless("a" * 10_000)) == MOST_CHARACTERS


def test_the_same_outcome_is_told_once_however_it_comes(model: Bucket, receiver: Receiver) -> None:
    event = analysed(model, "A fault")
    replayed = event.with_attributes(lane="replay", id="another", replayid="r")
    assert told(model, event, event, replayed) == [(204, "")] * 3
    assert told(model, event) == [(204, "")], "another process"
    assert len(receiver.posts) == 1


def test_findings_that_are_made_again_of_the_same_model_are_not_told_and_another_model_is(
    model: Bucket, receiver: Receiver
) -> None:
    told(model, analysed(model, "A fault"))
    model.put(b"weights")  # once more: the same content
    told(model, analysed(model, "A fault", "Another recipe finds more"))
    assert len(receiver.posts) == 1
    model.admit(b"other weights")
    model.write(evaluation(0.5))
    told(model, event_of(of_outcome(model.write(findings("A fault")))))
    assert len(receiver.posts) == 2


def test_two_deliveries_at_once_give_one_post(model: Bucket, receiver: Receiver) -> None:
    event, receiver.pause = analysed(model, "A fault"), 0.5

    async def both() -> list[list[tuple[int, str]]]:
        return await asyncio.gather(sent(model, event), sent(model, event))

    answers = sorted(status for ((status, _),) in asyncio.run(both()))
    assert answers == [204, 429], "the other is sent again"
    assert told(model, event) == [(204, "")]
    assert len(receiver.posts) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_a_receiver_cannot_take_now_is_offered_again(model: Bucket, receiver: Receiver, status: int) -> None:
    event, receiver.statuses = analysed(model, "A fault"), [status, 200]
    assert told(model, event, event, event) == [(503, f"the webhook answered {status}"), (204, ""), (204, "")]
    assert len(receiver.posts) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 410, 302])
def test_a_refusal_is_final_and_says_what_to_look_at(model: Bucket, receiver: Receiver, status: int) -> None:
    event, receiver.statuses = analysed(model, "A fault"), [status]
    ((answered, said),) = told(model, event)
    assert (answered, said) == (
        422,
        f"the webhook answered {status}, so nobody is told: is LAYERSCOPE_WEBHOOK_URL still right?",
    )
    assert len(receiver.posts) == 1 and markers(model) == [], "once it is right, it may be told"


def test_one_that_hangs_and_one_that_is_not_there_are_circumstances(
    model: Bucket, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, receiver.statuses = analysed(model, "A fault"), [None]
    function = started(model)
    assert function._webhook is not None
    function._webhook = webhook.Webhook(function._webhook.url, seconds=0.3)
    assert asyncio.run(sent(model, event, function=function)) == [(503, "the webhook does not answer within 0.3 s")]
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_URL", f"http://127.0.0.1:9/{SECRET}")
    assert told(model, event) == [(503, "the webhook cannot be reached: ConnectError")]
    assert markers(model) == []


def test_who_died_while_telling_is_taken_over_after_a_while(
    model: Bucket, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = analysed(model, "A fault")
    told(model, event)
    (listed,) = model.store.list(keys.PRODUCTS, keys.NOTIFICATIONS)
    dying = markers(model)[0].model_copy(update={"state": "claimed", "by": "somebody", "at": datetime.now(UTC)})
    model.store.put(keys.PRODUCTS, listed.key, dying.to_bytes())
    assert [status for status, _ in told(model, event)] == [429]
    late = dying.model_copy(update={"at": datetime.now(UTC) - once.CLAIM - timedelta(seconds=1)})
    model.store.put(keys.PRODUCTS, listed.key, late.to_bytes())
    assert told(model, event) == [(204, "")]
    model.store.put(keys.PRODUCTS, listed.key, b"damaged")
    assert told(model, event) == [(204, "")]
    assert len(receiver.posts) == 3 and markers(model)[0].state == "told"


REFUSAL = Refusal(code="bad-key", message="The key 'a<!here>' has 1 parts where 3 are needed.", hint="Move it.")


def test_a_refused_upload_is_told_with_what_to_do(model: Bucket, receiver: Receiver) -> None:
    model.store.put(keys.MODELS, "a<!here>", b"weights")
    there = model.store.head(keys.MODELS, "a<!here>")
    assert there is not None
    event = event_of(ModelRefused(key="a<!here>", etag=there.etag, refusal=REFUSAL), "_refused/1")
    assert told(model, event, event) == [(204, ""), (204, "")]
    assert receiver.texts == ["a‹!here› was refused: The key 'a‹!here›' has 1 parts where 3 are needed.\nMove it."]
    gone = event_of(ModelRefused(key="a<!here>", etag="another", refusal=REFUSAL), "_refused/1")
    assert told(model, gone) == [(204, "")]
    assert len(receiver.posts) == 1


def test_a_model_without_predictions_is_told_with_what_to_do(model: Bucket, receiver: Receiver) -> None:
    model.admit()
    refused = model.refuse(Predictions)
    told(model, event_of(of_outcome(refused)), event_of(of_outcome(model.refuse(Summary))))
    assert receiver.texts == [
        "tiny/net/1 is not analysed: This model cannot have predictions.\nupload another\n"
        "https://layerscope.example.com/models/tiny/net/1"
    ]


def test_a_function_that_gave_up_is_told_once_and_not_after_it_succeeded(model: Bucket, receiver: Receiver) -> None:
    model.admit()
    model.fail(Summary, "it broke at @someone")
    failed = _failure(model, Summary)
    told(model, failed, _failure(model, Summary, attempts=2))
    assert receiver.texts == [
        "tiny/net/1: summary failed: it broke at ＠someone\nhttps://layerscope.example.com/models/tiny/net/1"
    ]
    model.fail(Predictions)
    late = _failure(model, Predictions)
    model.refuse(Predictions)
    told(model, late)
    assert len(receiver.posts) == 1


def _failure(model: Bucket, product: Any, attempts: int = 1) -> CloudEvent:
    listed = [one.key for one in model.store.list(keys.PRODUCTS, keys.MANIFESTS) if ".failed." in one.key]
    (key,) = (one for one in listed if f"/{product.declared.name}/" in one)
    stored = json.loads(model.store.get(keys.PRODUCTS, key)) | {"attempts": attempts}
    return event_of(ProductFailed.model_validate(stored))


def test_an_upload_that_could_not_be_read_is_told(model: Bucket, receiver: Receiver) -> None:
    model.put()
    told(model, event_of(ProductFailed(**NAME, function="admit", address="r1-a", reason="it broke", attempts=1)))
    assert receiver.texts[0].startswith("tiny/net/1: it could not be read: it broke")


def test_what_is_gone_superseded_or_old_is_told_to_nobody(
    model: Bucket, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = analysed(model, "A fault")
    model.admit(b"other weights")
    assert told(model, event) == [(204, "")]
    model.remove()
    assert told(model, event) == [(204, "")]
    model.admit(b"weights")
    monkeypatch.setattr("layerscope.functions.notify.outcomes.TOLD_OF", timedelta(seconds=-5))
    assert told(model, event) == [(204, "")]
    assert receiver.posts == []
    monkeypatch.undo()
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_URL", receiver.url)
    assert told(model, event) == [(204, "")]
    assert len(receiver.posts) == 1


def test_without_a_webhook_nothing_is_done(model: Bucket, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAYERSCOPE_WEBHOOK_URL")
    assert told(model, analysed(model, "A fault")) == [(204, "")]
    assert receiver.posts == [] and markers(model) == []


def test_the_event_itself_may_be_posted(model: Bucket, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_FORMAT", "cloudevents")
    event = analysed(model, "A fault")
    told(model, event)
    ((_, headers, body),) = receiver.posts
    assert (headers["ce-type"], headers["ce-id"], headers["ce-subject"]) == (ProductWritten.type, event.id, WHO.subject)
    assert body == event.data


def test_the_address_is_in_no_log_no_answer_and_no_object(
    model: Bucket, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)  # below it, httpcore shows whatever headers a receiver answers with
    event, receiver.statuses = analysed(model, "A fault"), [500, 400, 302, 200]
    answers = told(model, event, event, event, event, event)
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_URL", f"http://127.0.0.1:9/{SECRET}")
    model.admit(b"other weights")
    model.write(evaluation(0.5))
    answers += told(model, event_of(of_outcome(model.write(findings()))))
    seen = [said for _, said in answers] + [record.getMessage() for record in caplog.records]
    seen += [str(record.exc_info) for record in caplog.records] + [repr(started(model)._webhook)]
    seen += [model.store.get(keys.PRODUCTS, one.key).decode("latin-1") for one in model.store.list(keys.PRODUCTS)]
    assert [status for status, _ in answers] == [503, 422, 422, 204, 204, 503]
    assert any("HTTP Request" in one for one in seen), "httpx logs here, and what it logs was looked at"
    assert [one for one in seen if "c4n4ry" in one or "B000" in one] == []


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/services/T0/B0/key",
        "http://127.0.0.1:8000/",
        "http://localhost/a?b=c",
        "http://chat.chat.svc/hooks/key",
        "http://chat.chat.svc.cluster.local:8065/hooks/key",
    ],
)
def test_an_address_is_taken_where_nobody_listens_on_the_way(url: str) -> None:
    settings = WebhookSettings.read({"LAYERSCOPE_WEBHOOK_URL": url})
    assert settings.layerscope_webhook_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/c4n4ry",
        "http://svc.example.com/c4n4ry",
        "ftp://c4n4ry",
        "c4n4ry",
        "https://",
        "https:///c4n4ry",
        "https://a b/c4n4ry\n",
        "http://127.0.0.1.example.com/c4n4ry",
        "https://[c4n4ry",
    ],
)
def test_any_other_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidSettings, match="LAYERSCOPE_WEBHOOK_URL has to be https") as caught:
        WebhookSettings.read({"LAYERSCOPE_WEBHOOK_URL": url})
    assert "c4n4ry" not in str(caught.value) and caught.value.__cause__ is None


def test_its_trigger_lets_through_what_it_tells_and_no_more() -> None:
    (trigger,) = (one for one in manifests.load(MANIFESTS).triggers if one.name == "notify")
    refusal = {"code": "c", "message": "m"}
    products = [one.declared.name for one in declared_products()]
    outcome = {"content": "c" * 64, "address": "r1-a"}
    said: list[EventData] = [
        ModelUploaded(bucket="models", key="d/m/1.pth", etag="e"),
        ModelAdmitted(**NAME, key="d/m/1.pth", etag="e", content="c" * 64),
        ModelRefused(key="d/m/1.pth", refusal=REFUSAL),
        IndexUpdated(**NAME, rows=1, fingerprint="f"),
        *(ProductRequested(**NAME, product=name) for name in products),
        *(ProductWritten(**NAME, product=name, **outcome) for name in products),
        *(ProductRefused(**NAME, product=name, **outcome, refusal=refusal) for name in products),
        *(
            ProductFailed(**NAME, function=name, address="r1-a", reason="r", attempts=1)
            for name in [*products, "admit"]
        ),
    ]
    for lane in ({}, {"lane": "replay"}):
        passed = [one for one in said if trigger.filter.matches(event_of(one, **lane).attributes())]
        assert [type(one).__name__ for one in passed if not isinstance(one, ProductFailed)] == [
            "ModelRefused",
            "ProductWritten",
            "ProductRefused",
        ]
        assert [getattr(one, "product", "") for one in passed[1:3]] == ["findings", "predictions"]
        assert sum(isinstance(one, ProductFailed) for one in passed) == len(products) + 1
