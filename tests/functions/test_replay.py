"""What is missing is asked for once, on its own lane; what failed for good is recorded, and passed over."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.kafka import KafkaMessage, Record, from_record, to_record
from layerscope.events.log import LogUnavailable
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import EVENTS, Tenant, trigger_group
from layerscope.functions.index.func import Index
from layerscope.functions.replay.failures import record_failure
from layerscope.functions.replay.func import PING, Replay, still_missing
from layerscope.functions.runtime import backlog
from layerscope.functions.runtime.dead_letters import read_dead_letter
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored, Refused, Unavailable
from layerscope.schemas.events import ModelAdmitted, ModelUploaded, ProductFailed, ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal, RefusedKey, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import catalogue, datasets, product_store, uploads
from layerscope.stores.cache import MemoryCache
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.product_store import Making
from tests.stores.exact_vector_store import NumpyStore
from tests.stores.named_store import NamedStore

IDENTITY = Identity("digits", "plain", "1")
WHO = {"dataset": "digits", "model": "plain", "version": "1"}
CONTENT = "c" * 64
FIRST = {(one.declared.name, IDENTITY.subject) for one in declared_products() if not one.declared.inputs}
BEHIND = {(one.declared.name, IDENTITY.subject) for one in declared_products() if one.declared.inputs == (Predictions,)}
PREDICTIONS = {("predictions", IDENTITY.subject)}


class System:
    """A directory, an in-memory log and index, and what a test puts there by hand."""

    def __init__(self, directory: Path) -> None:
        self.store = DirectoryStore(directory)
        self.log = MemoryLog()
        self.services = Services(self.store, NumpyStore(), MemoryCache(), self.log, directory / ".scratch")
        self.store.ensure_buckets()
        self.log.ensure_topics()
        part = datasets.PartArrays(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]))
        datasets.write(self.store, "digits", ("a", "b"), {"test": part, "probe": part}, mean=(0.5,), std=(0.5,))

    def upload(self, key: str = "digits/plain/1.safetensors", content: bytes = b"an upload") -> None:
        self.store.put(keys.MODELS, key, content)

    def admit(self, **outcome: Any) -> None:
        upload = uploads.current(self.store, IDENTITY)
        assert upload is not None
        given = outcome or {"state": "admitted", "content": CONTENT}
        self.record = UploadRecord(**WHO, recipe=1, etag=upload.etag, size=upload.size, **given)
        self.store.put(keys.PRODUCTS, upload.record_key, self.record.to_bytes())

    def predict(self) -> None:
        made = Predictions(outputs=np.eye(2, dtype=np.float32), output_kind="logits", images=2, non_finite=0)
        product_store.write(self.store, made, uploads.facts(self.store, self.record), Making())

    def index(self) -> None:
        index = Index()
        index.attach(self.services)
        event = compose(ProductRequested(**WHO, product="index"), source="/tests", subject=IDENTITY.subject)
        asyncio.run(index.respond(event))

    def asks(self, *, ask_failed: bool = False) -> set[tuple[str, str]]:
        return {
            (one.function, one.subject) for one in still_missing(self.services, KnownOutcomes(), ask_failed=ask_failed)
        }

    def published(self) -> list[CloudEvent]:
        found = [from_record(one) for one in self.log.backlog(EVENTS, "a group that never read", start="earliest")]
        return [one for one in found if one is not None]


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_in_an_empty_system_nothing_is_missing(system: System) -> None:
    assert system.asks() == set()


def test_an_upload_that_nobody_was_told_of_is_missing(system: System) -> None:
    system.upload()
    assert system.asks() == {("admit", IDENTITY.subject), ("index", IDENTITY.subject)}


def test_of_an_admitted_model_what_can_be_made_is_missing(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    assert system.asks() == FIRST
    system.predict()
    assert {one for one in system.asks() if one[0] != "index"} == BEHIND | (FIRST - PREDICTIONS)


def test_a_refused_upload_has_nothing_missing(system: System) -> None:
    system.upload()
    system.admit(state="refused", refusal=Refusal(code="not-a-model", message="It is text."))
    system.index()
    assert system.asks() == set()


def test_what_stands_on_a_refused_product_is_not_asked_for(system: System) -> None:
    system.upload()
    system.admit()
    facts = uploads.facts(system.store, system.record)
    product_store.refuse(system.store, Predictions, facts, Refused("wrong-shape", "No."), Making())
    system.index()
    assert system.asks() == FIRST - PREDICTIONS


def test_a_raised_recipe_makes_the_product_missing_and_what_stands_on_it(system: System) -> None:
    system.upload()
    system.admit()
    system.predict()
    raised = dataclasses.replace(Predictions.declared, recipe=2)
    with mock.patch.object(Predictions, "declared", raised):
        assert {one for one in system.asks() if one[0] != "index"} == FIRST


def test_a_changed_dataset_makes_missing_what_read_it(system: System) -> None:
    system.upload()
    system.admit()
    system.predict()
    other = datasets.PartArrays(np.ones((2, 4, 4, 1), np.uint8), np.array([0, 1]))
    datasets.write(system.store, "digits", ("a", "b"), {"test": other, "probe": other}, mean=(0.5,), std=(0.5,))
    assert ("predictions", IDENTITY.subject) in system.asks()


def test_a_sidecar_that_comes_late_has_the_upload_read_again(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    system.upload("digits/plain/1.history.json", b"{}")
    assert ("admit", IDENTITY.subject) in system.asks()


def test_a_key_that_breaks_the_rule_is_asked_for_until_it_is_recorded(system: System) -> None:
    key = "digits/my net/1.pth"
    system.upload(key)
    ((function, _),) = system.asks()
    assert function == "admit"
    refused = RefusedKey(key=key, refusal=Refusal(code="bad-key", message="No."))
    system.store.put(keys.PRODUCTS, keys.refused_key(key), refused.to_bytes())
    assert system.asks() == set()


def test_rows_of_a_model_that_is_gone_are_stale(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    system.store.remove(keys.MODELS, "digits/plain/1.safetensors")
    assert system.asks() == {("index", IDENTITY.subject)}
    system.index()
    assert system.asks() == set()
    assert system.services.vectors.catalogue() == []


def test_an_index_that_was_lost_is_filled_again(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    before = system.asks()
    lost = dataclasses.replace(system.services, vectors=NumpyStore())
    assert {(one.function, one.subject) for one in still_missing(lost, KnownOutcomes())} - before == {
        ("index", IDENTITY.subject)
    }


def test_what_waits_for_its_function_is_not_asked_for_again(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    told = ModelAdmitted(**WHO, key="k", etag="e", content=CONTENT)
    # Given that layer_vectors has taken its event, and the others have yet to
    system.log.publish(EVENTS, to_record(compose(told, source="/tests", subject=IDENTITY.subject)))
    consumer = system.log.consumer(EVENTS, trigger_group("layerscope", "layer-vectors"), start="earliest")
    (record,) = eventually_polled(consumer)
    consumer.commit({record.partition: record.offset + 1})
    # Then only layer_vectors is asked for
    assert system.asks() == {("layer_vectors", IDENTITY.subject)}


def test_what_waits_to_be_announced_is_not_asked_for_again_whatever_the_bucket_is_called(
    system: System, tmp_path: Path
) -> None:
    tenant = Tenant("vision", "vision.")
    system.log.ensure_topics(tenant.topics)
    system.services = dataclasses.replace(system.services, tenant=tenant, store=NamedStore(tmp_path))
    system.upload()
    assert ("admit", IDENTITY.subject) in system.asks()
    stored = {"key": "digits/plain/1.safetensors", "eTag": "e"}
    told = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"object": stored}}
    for bucket, waits in (("models", False), ("acme-models", True)):
        records = [{**told, "s3": {"bucket": {"name": bucket}, "object": stored}}]
        system.log.publish("vision.s3.raw", KafkaMessage(b"k", json.dumps({"Records": records}).encode()))
        assert (("admit", IDENTITY.subject) not in system.asks()) == waits


def eventually_polled(consumer: Any) -> list[Any]:
    for _ in range(50):
        if records := consumer.poll(0.1):
            return list(records)
    raise AssertionError("no record came")


def test_the_timer_asks_on_a_lane_of_its_own_and_says_what_for(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    replay = Replay()
    replay.attach(system.services)
    ping = CloudEvent(
        {"id": "1", "source": "/apis/v1/namespaces/layerscope/pingsources/missing", "type": PING, "subject": "missing"}
    )
    asyncio.run(replay.respond(ping))
    events = system.published()
    assert sorted(one.type.removeprefix("io.layerscope.") for one in events) == [
        *["product.requested.v1"] * len(FIRST),
        "replay.finished.v1",
        "replay.started.v1",
    ]
    assert {one.extensions["lane"] for one in events} == {"replay"}
    assert len({one.extensions["replayid"] for one in events}) == 1
    # And nothing is asked for a second time while that is queued
    asyncio.run(replay.respond(ping))
    assert len(system.published()) == len(events)


class Unread(MemoryLog):
    """A log in which one group's backlog cannot be read, or none can."""

    def __init__(self, *groups: str) -> None:
        super().__init__()
        self.unread = groups

    def backlog(self, topic: str, group: str, **others: Any) -> list[Record]:
        if not self.unread or group in self.unread:
            raise LogUnavailable(f"the backlog of {group} cannot be read")
        return super().backlog(topic, group, **others)


def test_repair_needs_no_readable_backlog(system: System, caplog: pytest.LogCaptureFixture) -> None:
    system.upload()
    found = still_missing(dataclasses.replace(system.services, log=Unread()), KnownOutcomes())
    assert {(one.function, one.subject) for one in found} == {("admit", IDENTITY.subject), ("index", IDENTITY.subject)}
    assert "admit is asked for all that it lacks" in caplog.text


def test_of_a_backlog_too_long_to_be_looked_at_nothing_more_is_asked(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given three events of others that one function has yet to pass, and the other has passed
    system.upload()
    system.admit()
    log = MemoryLog()
    for version in ("7", "8", "9"):
        asking = ProductRequested(**WHO | {"version": version}, product="evaluation")
        log.publish(EVENTS, to_record(compose(asking, source="/tests", subject=f"d/m/{version}")))
    for lane in ("predictions", "predictions-replay"):
        with contextlib.closing(log.consumer(EVENTS, trigger_group("layerscope", lane), start="earliest")) as reader:
            for one in reader.poll(0):
                reader.commit({one.partition: one.offset + 1})
    for lane in ("summary", "summary-replay"):
        log.consumer(EVENTS, trigger_group("layerscope", lane), start="earliest")
    asked = {"summary", "predictions"}
    services = dataclasses.replace(system.services, log=log)

    def found() -> set[str]:
        return {one.function for one in still_missing(services, KnownOutcomes())} & asked

    # When so many can be looked at, both are asked; when they cannot, nobody knows whose they are
    assert found() == asked
    monkeypatch.setattr(backlog, "LIMIT", 2)
    assert found() == asked - {"summary"}


def test_a_backlog_that_cannot_be_read_leaves_those_of_other_functions_as_they_are(system: System) -> None:
    system.upload()
    system.admit()
    log = Unread(trigger_group("layerscope", "summary"))
    for function in ("summary", "predictions"):
        event = compose(ProductRequested(**WHO, product=function), source="/tests", subject=IDENTITY.subject)
        log.publish(EVENTS, to_record(event))
    asked = {one.function for one in still_missing(dataclasses.replace(system.services, log=log), KnownOutcomes())}
    assert "summary" in asked
    assert "predictions" not in asked


def test_without_a_log_to_ask_in_the_round_ends_as_unavailable(system: System) -> None:
    class Gone(Unread):
        def publish(self, topic: str, message: KafkaMessage) -> None:
            raise LogUnavailable("Kafka is down")

    system.upload()
    replay = Replay()
    replay.attach(dataclasses.replace(system.services, log=Gone()))
    with pytest.raises(Unavailable):
        asyncio.run(replay.respond(CloudEvent({"id": "1", "source": "/ping", "type": PING, "subject": "missing"})))


# Dead letters --------------------------------------------------------------------------------------------------------


def dead_letter(
    function: str, code: str | None, reason: str = "the computing process ended with signal SIGKILL"
) -> CloudEvent:
    event = compose(ProductRequested(**WHO, product=function), source="/tests", subject=IDENTITY.subject)
    service = function.replace("_", "-")
    noted = {"knativeerrordest": f"http://{service}.layerscope.svc.cluster.local/"}
    noted |= {"knativeerrorcode": code} if code else {}
    noted |= {"knativeerrordata": base64.b64encode(reason.encode()).decode()}
    return event.with_attributes(**noted)


@pytest.mark.parametrize(
    ("destination", "function"),
    [
        ("http://gpu.layerscope.svc.cluster.local/layer_vectors", "layer_vectors"),
        ("http://layer-vectors-replay.layerscope.svc.cluster.local/layer_vectors", "layer_vectors"),
        ("http://layer-vectors-replay.layerscope.svc.cluster.local/", "layer_vectors"),
        ("http://admit.layerscope.svc.cluster.local", "admit"),
    ],
)
def test_a_dead_letter_is_of_the_function_at_its_path_and_else_of_its_host(destination: str, function: str) -> None:
    letter = read_dead_letter(dead_letter("evaluation", "500").with_attributes(knativeerrordest=destination))
    assert letter is not None
    assert letter.function == function


@pytest.mark.parametrize(
    ("code", "final"),
    [
        ("500", True),
        ("400", True),
        ("422", True),
        ("413", True),
        ("429", False),
        ("503", False),
        ("408", False),
        (None, False),
        ("502", False),
    ],
)
def test_only_an_answer_that_will_not_change_is_final(code: str | None, final: bool) -> None:
    letter = read_dead_letter(dead_letter("evaluation", code))
    assert letter is not None
    assert letter.is_final == final


def test_an_event_without_a_note_is_no_dead_letter() -> None:
    event = compose(ProductRequested(**WHO, product="x"), source="/tests", subject=IDENTITY.subject)
    assert read_dead_letter(event) is None


def failing(system: System, function: str, code: str | None = "500") -> None:
    replay = Replay()
    replay.attach(system.services)
    asyncio.run(replay.respond(dead_letter(function, code)))


def test_a_failure_is_recorded_told_and_passed_over_unless_asked_for(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    failing(system, "predictions")
    (told,) = system.published()
    assert (told.type, told.subject) == (ProductFailed.type, IDENTITY.subject)
    standing = catalogue.standing(system.store, IDENTITY)
    assert standing is not None
    failure = standing.outcomes["predictions"].failure
    assert failure is not None
    assert (failure.attempts, failure.reason) == (1, "the computing process ended with signal SIGKILL")
    system.index()
    assert system.asks() == FIRST - PREDICTIONS
    assert ("predictions", IDENTITY.subject) in system.asks(ask_failed=True)


def test_a_repeated_dead_letter_counts_once(system: System) -> None:
    system.upload()
    system.admit()
    letter = read_dead_letter(dead_letter("predictions", "500"))
    assert letter is not None
    for _ in range(2):
        failed = record_failure(system.store, letter)
        assert failed is not None
        assert failed.attempts == 1


def test_a_dead_letter_of_a_dependency_leaves_nothing(system: System) -> None:
    system.upload()
    system.admit()
    system.index()
    with pytest.raises(Ignored):
        failing(system, "predictions", "503")
    assert system.asks() == FIRST


def test_a_manifest_outranks_a_failure(system: System) -> None:
    system.upload()
    system.admit()
    failing(system, "predictions")
    system.predict()
    standing = catalogue.standing(system.store, IDENTITY)
    assert standing is not None
    assert standing.outcomes["predictions"].state == "complete"
    letter = read_dead_letter(dead_letter("predictions", "500"))
    assert letter is not None
    assert record_failure(system.store, letter) is None


def test_an_upload_that_could_not_be_read_is_shown_as_failed(system: System) -> None:
    system.upload()
    event = compose(
        ModelUploaded(bucket="models", key="digits/plain/1.safetensors", etag="e"),
        source="/tests",
        subject=IDENTITY.subject,
    )
    noted = {"knativeerrordest": "http://admit.layerscope.svc.cluster.local/", "knativeerrorcode": "500"}
    replay = Replay()
    replay.attach(system.services)
    asyncio.run(replay.respond(event.with_attributes(**noted)))
    standing = catalogue.standing(system.store, IDENTITY)
    assert standing is not None
    assert standing.state == "failed"
    system.index()
    assert system.asks() == set()
    assert system.asks(ask_failed=True) == {("admit", IDENTITY.subject)}
