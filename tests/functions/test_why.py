"""Why a model, or a product of it, is as it is: each cause planted in a bucket, log and index, and none where all is well."""

from __future__ import annotations

import base64
import dataclasses
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from layerscope.events.cloudevent import compose
from layerscope.events.kafka import KafkaMessage, to_record
from layerscope.events.log import Consumer
from layerscope.functions.query.why import URGENCY, why
from layerscope.functions.query.why_facts import ProcessState, WhyFacts, length
from layerscope.functions.query.why_queue import STANDS_STILL
from layerscope.functions.query.why_sources import Watch, facts_of
from layerscope.functions.runtime.backlog import groups
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.events import EventData, ModelAdmitted, ModelUploaded, ProductRequested, ProductWritten
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure, Refusal, UploadRecord
from layerscope.schemas.products import declared_products, product_named
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.why import WhyAnswer
from layerscope.stores import uploads
from layerscope.stores.index_rows import CatalogueRow, Replacement
from tests.functions.asking import WHO, Counting, get, settle
from tests.functions.bucket import Bucket, add_dataset, evaluation, services

PATH = f"/models/{WHO.subject}/why"
FAMILY = {"dataset": "tiny", "model": "net"}
NAMED = {**FAMILY, "version": "1"}


class System:
    """A directory, an index in memory, a log in memory, and what a test does to them."""

    def __init__(self, directory: Path) -> None:
        self.index = Counting()
        self.services: Services = services(directory, self.index)
        self.bucket = Bucket(self.services.store, WHO)
        self.joined: list[Consumer] = []

    def read_for(self, *functions: str) -> None:
        """Have somebody read for functions, who finishes nothing."""
        tenant, log = self.services.tenant, self.services.log
        for name in functions:
            if name == "announce":
                self.joined.append(log.consumer(tenant.s3_raw, tenant.announce_group, start="earliest"))
                continue
            for group, _ in groups(name, tenant):
                self.joined.append(log.consumer(tenant.events, group, start="earliest"))

    def publish(self, data: EventData, subject: str = WHO.subject, **extensions: str) -> None:
        event = compose(data, source="/tests", subject=subject, **extensions)
        self.services.log.publish(self.services.tenant.events, to_record(event))

    def announce(self, identity: Identity = WHO) -> None:
        self.publish(ModelUploaded(bucket="models", key=keys.upload(identity), etag="e"), identity.subject)

    def notify(self, identity: Identity = WHO) -> None:
        """Write the notification of a put, as a store does."""
        value = (
            '{"Records": [{"eventSource": "aws:s3", "eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "models"}, '
            f'"object": {{"key": "{keys.upload(identity)}", "size": 1, "eTag": "e"}}}}}}]}}'
        )
        self.services.log.publish(self.services.tenant.s3_raw, KafkaMessage(b"k", value.encode()))

    def request(self, product: str, identity: Identity = WHO, **extensions: str) -> None:
        who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
        self.publish(ProductRequested(**who, product=product), identity.subject, **extensions)

    def repaired(self, **health: Any) -> None:
        content = RepairHealth(**health).to_bytes()
        self.services.store.put(keys.PRODUCTS, keys.REPAIR_HEALTH, content)

    def fail(self, product: str | None, **said: Any) -> None:
        upload = uploads.current(self.services.store, WHO)
        assert upload is not None
        place = upload.record_key if product is None else manifest_key(product_named(product), self.bucket.facts)
        given = {"function": product or "admit", "reason": "it broke", "attempts": 3, "events": ("e1", "e2")}
        failure = Failure(**NAMED, address=place.rpartition("/")[2].removesuffix(".json"), **{**given, **said})
        self.services.store.put(keys.PRODUCTS, keys.failure(place), failure.to_bytes())

    def ask(self, product: str | None = None) -> WhyAnswer:
        return WhyAnswer.model_validate(get(self.services, PATH, **({"product": product} if product else {})))

    def facts(self) -> WhyFacts:
        return facts_of(self.services, WHO, Watch())


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path)
    add_dataset(made.services.store)
    yield made
    for one in made.joined:
        one.close()


def predict(system: System) -> None:
    import numpy as np

    made = Predictions(outputs=np.eye(6, 2, dtype=np.float32), output_kind="logits", images=6, non_finite=0)
    system.bucket.write(made)


# The healthy case


def test_of_a_complete_model_nothing_is_wrong(system: System) -> None:
    settle(system.services, {WHO: 0.75})
    found = system.ask()
    assert (found.finding.code, found.finding.state, found.finding.help) == ("complete", "complete", "")
    assert "Nothing is open: 2 complete" in found.finding.message
    assert [(one.step, one.ok) for one in found.steps] == [
        ("upload", True),
        ("notification", True),
        ("event", True),
        ("answer", True),
        ("index", True),
    ]
    assert {one.of for one in found.others} == {one.declared.name for one in declared_products()} | {"index"}
    assert found.notes == ()
    one = system.ask("evaluation")
    assert (one.finding.code, one.finding.of, one.others) == ("complete", "evaluation", ())
    assert [(step.step, step.ok) for step in one.steps][-1] == ("manifest", True)


# The upload


def test_a_name_that_is_not_there_brings_the_names_like_it(system: System) -> None:
    Bucket(system.services.store, Identity("tiny", "nett", "1")).put()
    Bucket(system.services.store, Identity("far", "away", "1")).put()
    found = system.ask()
    assert (found.finding.code, found.finding.state) == ("no-such-upload", None)
    assert "tiny/nett/1" in found.finding.message and "far" not in found.finding.message
    assert [(one.step, one.ok) for one in found.steps] == [("upload", False)]
    system.bucket.put()
    assert system.ask().finding.code != "no-such-upload"


def test_a_key_that_breaks_the_rule_is_named_with_the_rule(system: System) -> None:
    system.services.store.put(keys.MODELS, "tiny/net/1.pkl", b"weights")
    found = system.ask().finding
    assert found.code == "bad-key"
    assert "tiny/net/1.pkl" in found.message and "does not end in a model extension" in found.message
    assert "s3://models/tiny/net/1." in found.help


def test_an_upload_that_nobody_was_told_of_waits_for_the_next_round_of_repair(system: System) -> None:
    system.bucket.put()
    system.read_for("announce", "admit")
    found = system.ask().finding
    assert found.code == "not-announced" and "in its next round" in found.message
    now = datetime.now(UTC)
    system.repaired(due=now + timedelta(hours=1))  # the first round has begun, and none has ended
    assert "in its next round" in system.ask().finding.message
    system.repaired(last_good=now)
    due = now + timedelta(seconds=60)
    assert f"{due:%H:%M:%S}" in system.ask().finding.message
    system.repaired(last_good=now - timedelta(hours=2))
    assert "its last round was 2 h 0 min ago: replay does not run" in system.ask().finding.message
    system.repaired(last_good=now, failed_rounds=3, reason="Kafka does not answer")
    found = system.ask().finding
    assert "no round has ended well" in found.message and "Kafka does not answer" in found.message
    assert "layerscope status" in found.help
    system.announce()
    assert system.ask().finding.code == "being-computed"


def test_a_notification_that_announce_has_not_read_is_found_in_its_topic(system: System) -> None:
    system.bucket.put()
    system.notify()
    found = system.ask()
    assert found.finding.code == "nobody-reads" and "layerscope-announce" in found.finding.message
    system.read_for("announce", "admit")
    found = system.ask()
    assert found.finding.code == "being-computed" and "announce has its event now" in found.finding.message
    assert ("notification", True) in [(one.step, one.ok) for one in found.steps]


def test_an_announced_upload_tells_behind_how_many_it_waits_in_its_partition(system: System) -> None:
    system.bucket.put()
    system.read_for("announce", "admit")
    for number in range(12):
        system.announce(Identity("tiny", "net", f"other-{number}"))
    system.announce()
    system.announce(Identity("tiny", "net", "later"))
    records = system.services.log.backlog(system.services.tenant.events, "nobody")
    (own,) = (one for one in records if one.key == WHO.subject.encode())
    ahead = sum(one.partition == own.partition and one.offset < own.offset for one in records)
    assert ahead >= 1
    found = system.ask().finding
    assert found.code == "waits"
    assert f"behind {ahead} others in partition {own.partition}" in found.message
    assert "knative-trigger-layerscope-admit" in found.message and "14 wait in all" in found.message


def test_events_of_other_functions_are_not_counted_as_before_it(system: System) -> None:
    system.bucket.put()
    system.read_for("announce", "admit")
    for _ in range(5):
        system.request("summary")
    system.announce()
    assert system.ask().finding.code == "being-computed"


def test_where_nobody_reads_for_the_group_that_is_the_cause(system: System) -> None:
    system.bucket.put()
    system.announce()
    found = system.ask().finding
    assert found.code == "nobody-reads" and "knative-trigger-layerscope-admit" in found.message
    assert "kubectl get ksvc,triggers" in found.help and "layerscope up" in found.help
    system.read_for("admit")
    assert system.ask().finding.code == "being-computed"


def test_a_refused_upload_has_the_code_and_the_hint(system: System) -> None:
    system.bucket.admit(refusal=Refusal(code="not-a-model", message="It is text.", hint="layerscope pack"))
    found = system.ask()
    assert (found.finding.code, found.finding.state) == ("refused", "refused")
    assert "not-a-model" in found.finding.message and found.finding.help == "layerscope pack"
    product = system.ask("evaluation").finding
    assert product.code == "upload-not-admitted" and product.because is not None
    assert "It is text." in product.because.message


def test_an_upload_that_failed_for_good_tells_reason_attempts_and_how_to_ask_again(system: System) -> None:
    system.bucket.put()
    system.fail(None, reason="the computing process ended with signal SIGKILL")
    found = system.ask().finding
    assert (found.code, found.state) == ("failed", "failed")
    assert "SIGKILL" in found.message and "3 times" in found.message
    assert "e2" in found.help and "layerscope.dlq" in found.help and "replay run --failed" in found.help
    assert ("attempt", False) in [(one.step, one.ok) for one in system.ask().steps]


def test_a_failure_of_circumstances_tells_when_it_is_asked_for_again(system: System) -> None:
    system.bucket.put()
    again = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    system.fail(None, reason="no space left", cause="circumstances", ask_again_at=again, asked_again=2)
    found = system.ask().finding
    assert found.code == "asked-again" and "2026-05-04 03:02:01" in found.message and "no space left" in found.message


def test_of_a_failure_that_is_asked_for_again_the_line_is_told(system: System) -> None:
    system.bucket.put()
    system.fail(None)
    system.announce()
    system.read_for("announce", "admit")
    assert system.ask().finding.code == "being-computed"


def test_an_upload_that_an_older_admit_has_read_says_so(system: System) -> None:
    system.bucket.put()
    upload = uploads.current(system.services.store, WHO)
    assert upload is not None
    older = keys.upload_record(WHO, UploadRecord.RECIPE - 1, upload.etag, {})
    system.services.store.put(keys.PRODUCTS, older, b"{}")
    found = system.ask().finding
    assert (
        found.code == "not-announced"
        and f"recipe {UploadRecord.RECIPE - 1}, now {UploadRecord.RECIPE}" in found.message
    )


def test_of_two_keys_with_one_name_the_older_is_said_to_be_superseded(system: System) -> None:
    system.services.store.put(keys.MODELS, "tiny/net/1.pth", b"older")
    system.bucket.put()
    assert any("tiny/net/1.pth" in note and "superseded" in note for note in system.ask().notes)


# Products


def test_a_refused_product_has_its_code_and_what_stands_on_it_names_it(system: System) -> None:
    system.bucket.admit()
    system.bucket.refuse(Predictions)
    found = system.ask("predictions").finding
    assert (found.code, found.state, found.help) == ("refused", "refused", "upload another")
    through = system.ask("evaluation").finding
    assert (through.code, through.state) == ("refused-input", "refused")
    assert through.because is not None and through.because.of == "predictions" and "predictions" in through.message


def test_a_product_without_its_dataset_says_how_to_add_it(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.bucket.admit()
    found = system.ask("predictions").finding
    assert found.code == "not-asked" and "There is no dataset tiny" in found.message
    from layerscope.schemas.errors import Refused
    from layerscope.stores import product_store

    refused = Refused("no-dataset", "There is no dataset 'tiny'.", "layerscope datasets add tiny")
    product_store.refuse(system.services.store, Predictions, system.bucket.facts, refused, system.bucket.making)
    found = system.ask("predictions").finding
    assert found.code == "no-dataset" and found.help == "layerscope datasets add tiny"
    add_dataset(system.services.store)
    assert system.ask("predictions").finding.code == "not-asked"


def test_a_product_that_waits_for_an_input_says_where_that_one_stands_down_to_the_cause(system: System) -> None:
    system.bucket.admit()
    system.read_for(*(one.declared.name for one in declared_products()))
    system.request("predictions")
    found = system.ask("evaluation").finding
    assert (found.code, found.state) == ("waits-for-input", "computing")
    assert found.because is not None
    assert (found.because.of, found.because.code) == ("predictions", "being-computed")
    predict(system)
    assert system.ask("evaluation").finding.code == "not-asked"
    chain = system.ask("description").finding
    while chain.because is not None:
        chain = chain.because
    assert chain.of in {one.declared.name for one in product_named("description").declared.inputs}


def test_a_product_whose_event_waits_on_the_replay_lane_names_that_group(system: System) -> None:
    system.bucket.admit()
    system.request("summary", lane="replay")
    assert "knative-trigger-layerscope-summary-replay" in system.ask("summary").finding.message


def test_a_failed_product_and_what_stands_on_it(system: System) -> None:
    system.bucket.admit()
    system.fail("predictions", reason="the computation raised ZeroDivisionError")
    found = system.ask("predictions").finding
    assert (found.code, found.state) == ("failed", "failed") and "ZeroDivisionError" in found.message
    behind = system.ask("evaluation").finding
    assert (behind.code, behind.state) == ("failed-input", "failed")
    assert behind.because is not None and behind.because.of == "predictions"
    whole = system.ask().finding
    assert whole.code == "failed" and whole.of == "predictions"


def test_what_a_function_did_not_take_tells_its_last_answer_and_that_it_is_asked_again(system: System) -> None:
    system.bucket.admit()
    system.repaired(last_good=datetime.now(UTC))
    assert system.ask("summary").finding.code == "not-asked"
    destination = "http://summary.layerscope.svc.cluster.local/"
    for reason in ("an older one", "summary failed for 5 models in a row"):
        event = compose(ProductRequested(**NAMED, product="summary"), source="/tests", subject=WHO.subject)
        noted = {"knativeerrorcode": "503", "knativeerrordata": base64.b64encode(reason.encode()).decode()}
        letter = to_record(event.with_attributes(knativeerrordest=destination, **noted))
        system.services.log.publish(system.services.tenant.dead_letters, letter)
    found = system.ask("summary").finding
    assert (found.code, found.state) == ("asked-again", "computing")
    assert "answered 503: summary failed for 5 models in a row" in found.message and "2 times in all" in found.message
    assert "repair looks next at" in found.message
    assert system.ask("predictions").finding.code == "not-asked"


def test_dead_letters_from_before_the_present_upload_are_no_cause(system: System) -> None:
    event = compose(ModelUploaded(bucket="models", key="k", etag="e"), source="/tests", subject=WHO.subject)
    noted = {"knativeerrordest": "http://admit.layerscope.svc.cluster.local/", "knativeerrorcode": "503"}
    system.services.log.publish(system.services.tenant.dead_letters, to_record(event.with_attributes(**noted)))
    time.sleep(0.01)
    system.bucket.put()
    assert system.ask().finding.code == "not-announced"


def test_a_product_of_an_older_recipe_or_dataset_is_said_to_be_shown_meanwhile(system: System) -> None:
    settle(system.services, {WHO: 0.75})
    add_dataset(system.services.store, shade=3)
    predict(system)
    found = system.ask("evaluation")
    assert found.finding.code == "not-asked" and "from other inputs" in found.finding.message
    assert any("older evaluation" in note for note in found.notes)
    system.bucket.write(evaluation(0.5))
    assert not any("older evaluation" in note for note in system.ask("evaluation").notes)


def test_a_product_whose_event_was_lost_is_asked_for_by_repair(system: System) -> None:
    system.bucket.admit()
    found = system.ask("summary").finding
    assert found.code == "not-asked" and "repair" in found.message
    system.publish(ModelAdmitted(**NAMED, key="k", etag="e", content="c" * 64))
    assert system.ask("summary").finding.code == "nobody-reads"


def test_what_is_written_of_an_input_wakes_what_stands_on_it(system: System) -> None:
    system.bucket.admit()
    predict(system)
    system.read_for("evaluation")
    written = ProductWritten(**NAMED, content="c" * 64, product="predictions", address="a")
    system.publish(written)
    assert system.ask("evaluation").finding.code == "being-computed"


def test_an_unknown_product_is_refused_with_the_names_that_there_are(system: System) -> None:
    answer = get(system.services, PATH, 404, product="verdict")
    assert answer["code"] == "no-such-product" and "evaluation" in answer["hint"]


# Index, log, processes


def test_an_index_that_lacks_the_news_is_named_and_one_that_has_them_is_not(system: System) -> None:
    settle(system.services, {WHO: 0.75})
    system.index.replace([Replacement(WHO.subject, {}, None)])
    found = system.ask()
    assert found.finding.code == "index-behind" and found.finding.of == "index"
    assert [(one.step, one.ok) for one in found.steps][-1] == ("index", False)
    system.read_for("index")
    system.request("index")
    assert system.ask().finding.code == "being-computed"


class Down(Counting):
    def line(self, subject: str) -> CatalogueRow | None:
        raise Unavailable("Milvus does not answer")


def test_where_the_index_does_not_answer_the_bucket_still_does(system: System) -> None:
    settle(system.services, {WHO: 0.75})
    system.services = dataclasses.replace(system.services, vectors=Down())
    found = system.ask()
    assert found.finding.code == "index-unreachable" and "Milvus does not answer" in found.finding.message
    assert system.ask("evaluation").finding.code == "complete"


def test_where_the_log_does_not_answer_that_is_said_and_the_bucket_is_told(system: System) -> None:
    settle(system.services, {WHO: 0.75})
    other = Bucket(system.services.store, Identity("tiny", "net", "2"))
    other.put()
    system.services.log.close()
    assert system.ask("evaluation").finding.code == "complete"
    answer = WhyAnswer.model_validate(get(system.services, "/models/tiny/net/2/why"))
    assert answer.finding.code == "log-unreachable" and "the log is closed" in answer.finding.message
    assert any("this is what the bucket says" in note for note in answer.notes)


def in_line(system: System) -> WhyFacts:
    system.bucket.put()
    system.announce()
    system.read_for("announce", "admit")
    return system.facts()


@pytest.mark.parametrize(
    ("planted", "code", "words"),
    [
        ({}, "being-computed", "admit has its event now"),
        (
            {"admit": ProcessState("admit", False, False, 7, "killed by the kernel")},
            "not-running",
            "killed by the kernel",
        ),
        ({"admit": ProcessState("admit", True, False, 2)}, "not-running", "starts, and is not ready yet"),
        ({"dataplane": ProcessState("dataplane", False, False)}, "not-running", "dataplane is not running"),
        ({"admit": ProcessState("admit", True, True, 3)}, "being-computed", "admit has its event now"),
        (
            {"admit": ProcessState("admit", True, True, not_taken={WHO.subject: "answered 503: its disk is full"})},
            "asked-again",
            "admit was offered its event and answered 503: its disk is full; it is offered again and again",
        ),
        (
            {"admit": ProcessState("admit", True, True, not_taken={"digits/other/1": "answered 503"})},
            "being-computed",
            "admit has its event now",
        ),
        ({"summary": ProcessState("summary", False, False)}, "being-computed", "admit has its event now"),
    ],
)
def test_of_a_stack_the_process_that_should_take_the_event_is_looked_at(
    system: System, planted: dict[str, ProcessState], code: str, words: str
) -> None:
    found = why(dataclasses.replace(in_line(system), processes=planted)).finding
    assert (found.code, words in found.message) == (code, True), found.message


def test_of_a_process_with_many_functions_it_is_said_once_that_it_is_down(system: System) -> None:
    host = ProcessState("models", False, False, 1, "killed by the kernel")
    found = why(
        dataclasses.replace(in_line(system), processes=dict.fromkeys(("summary", "predictions", "split"), host))
    )
    assert [note for note in found.notes if "models" in note] == ["The process models is not running."]


def test_of_a_stack_whose_kafka_is_down_that_is_the_cause(system: System) -> None:
    system.bucket.put()
    system.services.log.close()
    kafka = ProcessState("kafka", False, False, 2, "it was stopped by a signal")
    found = why(dataclasses.replace(system.facts(), processes={"kafka": kafka})).finding
    assert found.code == "not-running" and "kafka" in found.message and "stopped by a signal" in found.message
    well = {"kafka": ProcessState("kafka", True, True)}
    assert why(dataclasses.replace(system.facts(), processes=well)).finding.code == "log-unreachable"


def test_what_was_only_not_asked_for_waits_behind_what_is_computed(system: System) -> None:
    system.bucket.admit()
    system.read_for("summary")
    system.request("summary")
    assert system.ask().finding.of == "summary"


def test_a_line_whose_first_event_stays_stands_still(system: System) -> None:
    facts = in_line(system)
    line = facts.lines["admit"] if facts.lines else None
    assert line is not None
    for unmoved, code in (
        (STANDS_STILL, "stands-still"),
        (STANDS_STILL - timedelta(seconds=1), "being-computed"),
        (None, "being-computed"),
    ):
        lines = {"admit": dataclasses.replace(line, unmoved=unmoved)}
        assert why(dataclasses.replace(facts, lines=lines)).finding.code == code


def test_a_watch_knows_for_how_long_the_first_event_has_been_the_same(system: System) -> None:
    facts = in_line(system)
    events = facts.lines["admit"].events if facts.lines else ()
    watch = Watch()
    assert watch.unmoved("admit", events, 100.0) is None
    assert watch.unmoved("admit", events, 130.0) == timedelta(seconds=30)
    assert watch.unmoved("admit", (), 140.0) is None
    assert watch.unmoved("admit", events, 150.0) is None


def test_the_most_urgent_finding_is_told_first(system: System) -> None:
    system.bucket.admit()
    system.fail("summary")
    assert system.ask().finding.of == "summary"  # before those that were only not asked for
    assert URGENCY.index("failed") < URGENCY.index("not-asked")


def test_lengths_of_time_are_written_in_the_unit_that_fits() -> None:
    spans = {
        30: "30 s",
        119: "119 s",
        121: "2 min",
        7_199: "119 min",
        9_000: "2 h 30 min",
        200_000: "2 days",
        -5: "0 s",
    }
    assert {seconds: length(timedelta(seconds=seconds)) for seconds in spans} == spans


def test_evaluation_is_a_product_that_stands_on_another() -> None:
    assert Evaluation.declared.inputs == (Predictions,)  # what the cases above rely on


def test_no_sentence_shows_a_python_value(system: System) -> None:
    system.bucket.admit()
    system.fail("predictions")
    told = system.ask().model_dump_json()
    assert not re.search(r"timedelta|datetime\.|None|Identity\(", told)
