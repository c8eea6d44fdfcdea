"""A failure that may be one of the circumstances is asked for again after growing pauses; one of the work is not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerscope.dataplane import delivery
from layerscope.dataplane.subscribers import SubscriberAnswer
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.query import answers
from layerscope.functions.replay.failures import PAUSES, record_failure
from layerscope.functions.runtime.dead_letters import read_dead_letter
from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.errors import CircuitOpen, SetAside, ShortOfResources, WorkerDied, WorkFailed, WorkStalled
from layerscope.schemas.events import ProductRequested
from layerscope.schemas.manifests import Failure
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import product_store, uploads
from tests.functions.runtime.test_handler import Answering, post
from tests.functions.test_replay import IDENTITY, WHO, System, dead_letter

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def system(tmp_path: Path) -> System:
    made = System(tmp_path)
    made.upload()
    made.admit()
    return made


def letter(kind: str, offset: int, code: str = "500") -> CloudEvent:
    return dead_letter("predictions", code).with_attributes(
        errorclass=kind, knativekafkapartition="0", knativekafkaoffset=str(offset)
    )


def failed(system: System, kind: str, offset: int, at: datetime = START, code: str = "500") -> Failure:
    read = read_dead_letter(letter(kind, offset, code))
    assert read is not None
    record_failure(system.store, read, at)
    place = manifest_key(Predictions, uploads.facts(system.store, system.record))
    recorded = product_store.failure(system.store, place)
    assert recorded is not None
    return recorded


def test_a_failure_of_the_work_is_never_due(system: System) -> None:
    recorded = failed(system, WorkFailed.__name__, 0)
    assert (recorded.cause, recorded.ask_again_at) == ("work", None)
    assert not recorded.is_due(START + timedelta(days=365))
    assert "not asked for again" in recorded.outlook
    assert recorded.explanation == recorded.reason


@pytest.mark.parametrize(("kind", "code"), [(WorkerDied.__name__, "500"), (SetAside.__name__, "422")])
def test_what_may_be_circumstances_is_asked_for_again_eight_times_after_growing_pauses(
    system: System, kind: str, code: str
) -> None:
    now, pauses = START, []
    for attempt in range(8):
        recorded = failed(system, kind, attempt, now, code)
        assert recorded.ask_again_at is not None
        assert (recorded.cause, recorded.asked_again, recorded.attempts) == (
            "circumstances",
            attempt + 1,
            attempt + 1,
        )
        assert not recorded.is_due(recorded.ask_again_at - timedelta(seconds=1))
        assert recorded.is_due(recorded.ask_again_at)
        assert not recorded.is_due(now - timedelta(seconds=59)), "clocks of two machines differ a little"
        assert recorded.is_due(now - timedelta(days=1)), "it was recorded under a clock that was a day ahead"
        assert f"{recorded.ask_again_at:%Y-%m-%d %H:%M:%S}" in recorded.outlook
        pauses.append(recorded.ask_again_at - now)
        now = recorded.ask_again_at
    assert pauses == list(PAUSES)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (timedelta(minutes=1), timedelta(days=1))
    last = failed(system, kind, 8, now, code)
    assert (last.ask_again_at, last.attempts) == (None, 9)
    assert "8 times in vain" in last.outlook


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (WorkerDied("the computing process ended with signal SIGKILL"), "circumstances"),
        (SetAside("set aside after 5 attempts"), "circumstances"),
        (WorkFailed("the computation raised KeyError"), "work"),
        (KeyError("a bug"), "work"),
    ],
)
def test_the_kind_of_an_error_comes_through_from_the_functions_answer_to_what_is_recorded(
    system: System, error: Exception, cause: str
) -> None:
    async def respond(_: CloudEvent) -> CloudEvent | None:
        raise error

    sent = compose(ProductRequested(**WHO, product="predictions"), source="/tests", subject=IDENTITY.subject)
    answer = asyncio.run(post(Answering(respond), sent))
    given_up = SubscriberAnswer(answer.status_code, tuple(answer.headers.raw), answer.content)
    stored = delivery.dead_letter(sent, "http://predictions.layerscope.svc.cluster.local/", given_up)
    read = read_dead_letter(stored.with_attributes(knativekafkapartition="0", knativekafkaoffset="7"))
    assert read is not None
    assert read.is_final
    assert record_failure(system.store, read, START) is not None
    recorded = product_store.failure(
        system.store, manifest_key(Predictions, uploads.facts(system.store, system.record))
    )
    assert recorded is not None
    assert (recorded.cause, recorded.letters) == (cause, ("0:7",))
    assert recorded.is_due(START + PAUSES[0]) == (cause == "circumstances")


@pytest.mark.parametrize("error", [WorkStalled("no processor"), ShortOfResources("no space"), CircuitOpen("all fail")])
def test_what_the_circumstances_did_leaves_no_failure(system: System, error: Exception) -> None:
    async def respond(_: CloudEvent) -> CloudEvent | None:
        raise error

    sent = compose(ProductRequested(**WHO, product="predictions"), source="/tests", subject=IDENTITY.subject)
    answer = asyncio.run(post(Answering(respond), sent))
    given_up = SubscriberAnswer(answer.status_code, tuple(answer.headers.raw), answer.content)
    read = read_dead_letter(delivery.dead_letter(sent, "http://predictions.layerscope.svc.cluster.local/", given_up))
    assert read is not None
    assert not read.is_final


def test_the_same_letter_read_again_sets_no_further_pause_although_its_event_has_one_id_for_ever(
    system: System,
) -> None:
    first = failed(system, WorkerDied.__name__, 0)
    assert failed(system, WorkerDied.__name__, 0, START + timedelta(hours=1)) == first
    assert failed(system, WorkerDied.__name__, 1, START + timedelta(hours=1)).attempts == 2


def test_a_work_that_fails_by_itself_after_circumstances_is_final(system: System) -> None:
    failed(system, WorkerDied.__name__, 0)
    recorded = failed(system, WorkFailed.__name__, 1)
    assert (recorded.cause, recorded.ask_again_at, recorded.attempts) == ("work", None, 2)


def test_a_model_says_of_a_product_that_may_have_failed_of_circumstances_when_it_is_asked_for_again(
    system: System,
) -> None:
    recorded = failed(system, WorkerDied.__name__, 0)
    assert recorded.explanation == (
        "the computing process ended with signal SIGKILL. It may have been the circumstances: asked for again after "
        "2026-03-01 00:01:00 UTC (pause 1)."
    )
    answer = answers.product(system.store, IDENTITY, "predictions")
    assert (answer.state, answer.reason) == ("failed", recorded.explanation)


def test_a_failure_stored_by_an_earlier_release_is_read_and_never_due() -> None:
    stored = (
        b'{"address":"r1-ab","attempts":2,"dataset":"digits","events":["a","b"],"function":"predictions",'
        b'"model":"plain","reason":"a bug","version":"1"}'
    )
    read = Failure.from_bytes(stored)
    assert (read.attempts, read.cause, read.ask_again_at, read.letters) == (2, "work", None, ())
    assert not read.is_due(START)


def test_what_is_stored_is_read_back_whole(system: System) -> None:
    recorded = failed(system, WorkerDied.__name__, 0)
    assert Failure.from_bytes(recorded.to_bytes()) == recorded


def test_what_failed_to_be_made_once_more_is_recorded_with_its_run_and_leaves_what_stands(system: System) -> None:
    run = "20260301T000000-0badcafe"
    asked = ProductRequested(**WHO, product="predictions", reason=f"replay {run}", beside=run)
    event = letter(WorkFailed.__name__, 0)
    composed = compose(asked, source="/functions/replay", subject=event.subject)
    read = read_dead_letter(
        event.with_data(composed.data).with_attributes(type=ProductRequested.type, dataschema=composed.dataschema)
    )
    assert read is not None
    assert record_failure(system.store, read, START) is not None
    place = manifest_key(Predictions, uploads.facts(system.store, system.record))
    assert product_store.failure(system.store, place) is None
    recorded = product_store.failure(system.store, keys.beside(run, place))
    assert recorded is not None
    assert recorded.function == "predictions"
