"""Dead letters as operators meet them: one for each cause, gone once what it asked for is there, counted as listed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Refused
from layerscope.schemas.events import EventData, ModelAdmitted, ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.replays import DeadLetterRecord
from layerscope.stores import damage, dead_letters, product_store
from tests.functions.bucket import Bucket, add_dataset, services
from tests.functions.test_query_replays import WHO, ask, bring, letter

pytestmark = pytest.mark.slow

LATE = Identity("tiny", "late", "1")
NAMES = {"dataset": WHO.dataset, "model": WHO.model, "version": WHO.version}
RUNS = ("20260301T000000-0badcafe", "20260302T000000-0badcafe")


@pytest.fixture
def system(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    Bucket(made.store, WHO).admit(content=WHO.subject.encode())
    return made


def listed(system: Services) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(system, "GET", "/dead-letters").json()["letters"]
    assert ask(system, "GET", "/status").json()["dead_letters"] == len(found)
    return found


def given_up(data: EventData, **more: str) -> CloudEvent:
    """Return the dead letter of `predictions` about another event."""
    other = compose(data, source="/tests", subject=WHO.subject)
    noted = {**letter(**more).extensions, "product": None}
    return other.with_attributes(**noted)


def asked(reason: str, beside: str | None = None, **more: str) -> CloudEvent:
    return given_up(ProductRequested(**NAMES, product="predictions", reason=reason, beside=beside), **more)


def unread(**more: Any) -> CloudEvent:
    """Return the dead letter of `admit` about an upload."""
    data = ModelUploaded(bucket=keys.MODELS, key=keys.upload(LATE), etag="e", **more)
    noted = {name: one for name, one in letter("admit").extensions.items() if name.startswith(("knative", "error"))}
    return compose(data, source="/tests", subject=LATE.subject).with_attributes(**noted)


def admitted(system: Services) -> ModelAdmitted:
    record = Bucket(system.store, WHO).record
    assert record.content is not None
    return ModelAdmitted(**NAMES, key=keys.upload(WHO), etag=record.etag, content=record.content)


def refuse(system: Services, beside: str | None = None) -> None:
    """Have `predictions` answered: the model cannot have them."""
    bucket = Bucket(system.store, WHO)
    product_store.refuse(system.store, Predictions, bucket.facts, Refused("no", "No."), bucket.making, beside)


# One for each cause ----------------------------------------------------------------------------------------------------


def test_whoever_asked_for_it_a_cause_has_one_letter_which_keeps_the_newest_event(system: Services) -> None:
    bring(system, given_up(admitted(system)), asked("missing"), *(asked(f"replay {run}") for run in RUNS))
    (line,) = listed(system)
    assert line["times"] == 4
    kept = ask(system, "GET", f"/dead-letters/{line['id']}").json()["letter"]
    assert f"replay {RUNS[1]}" in kept["data"]
    selection = {"state": "dead-letter", "letter": line["id"]}
    entries = ask(system, "GET", "/replays/plan", params=selection).json()["entries"]
    assert [(one["function"], one["subject"]) for one in entries if not one["follows"]] == [
        ("predictions", WHO.subject)
    ]


def test_numbers_in_the_reason_make_no_other_cause(system: Services) -> None:
    bring(system, letter(reason="killed after 12.5 s"), letter(reason="killed after 13 s"))
    (line,) = listed(system)
    assert (line["times"], line["reason"]) == (2, "killed after 13 s")


@pytest.mark.parametrize(
    "other", [{"status": "503"}, {"reason": "another fault"}, {"errorclass": "SetAside"}, {"function": "summary"}]
)
def test_another_answer_or_function_is_another_cause(system: Services, other: dict[str, str]) -> None:
    first = letter()
    bring(system, first, first.with_attributes(errorclass="SetAside") if "errorclass" in other else letter(**other))
    assert len(listed(system)) == 2


def test_another_upload_is_another_cause(system: Services) -> None:
    bring(system, letter())
    Bucket(system.store, WHO).admit(content=b"another model")
    bring(system, letter())
    assert [one["times"] for one in listed(system)] == [1, 1]


def test_a_notification_and_repair_that_bring_the_same_upload_to_no_end_are_one_cause(system: Services) -> None:
    Bucket(system.store, LATE).put()
    given: tuple[dict[str, Any], ...] = ({}, {"origin": "missing"}, {"sequencer": "7"})
    bring(system, *(unread(**more) for more in given))
    assert [one["times"] for one in listed(system)] == [3]


def test_what_runs_were_to_make_once_more_is_a_cause_of_its_own_that_what_stands_does_not_settle(
    system: Services,
) -> None:
    bring(system, letter(), *(asked(f"replay {run}", beside=run) for run in RUNS))
    assert sorted(one["times"] for one in listed(system)) == [1, 2]
    bring(system, asked("replay", beside=RUNS[1]))
    refuse(system, RUNS[0])
    assert sorted(one["times"] for one in listed(system)) == [1, 3]
    refuse(system, RUNS[1])
    assert [one["times"] for one in listed(system)] == [1]


# Settled ---------------------------------------------------------------------------------------------------------------


def test_a_letter_is_gone_once_what_it_asked_for_is_there_and_back_when_it_is_given_up_anew(system: Services) -> None:
    bring(system, letter())
    assert len(listed(system)) == 1
    refuse(system)
    assert listed(system) == []
    assert ask(system, "GET", "/replays/plan", params={"state": "dead-letter"}).json()["entries"] == []


def test_a_letter_that_comes_after_its_outcome_is_not_listed(system: Services) -> None:
    refuse(system)
    bring(system, letter())
    assert listed(system) == []


def test_an_outcome_that_cannot_be_read_settles_nothing(system: Services) -> None:
    bring(system, letter())
    (line,) = listed(system)
    place = ask(system, "GET", f"/dead-letters/{line['id']}").json()["letter"]["outcome"]
    system.store.put(keys.PRODUCTS, place, b"{")
    assert len(listed(system)) == 1


def test_of_an_upload_that_was_not_read_the_record_settles_the_letter(system: Services) -> None:
    Bucket(system.store, LATE).put()
    bring(system, unread())
    assert [one["subject"] for one in listed(system)] == [LATE.subject]
    Bucket(system.store, LATE).admit()
    assert listed(system) == []


def test_what_is_settled_is_written_down_within_the_hour_and_a_later_letter_opens_it_again(system: Services) -> None:
    bring(system, asked("missing"))
    (line,) = listed(system)
    refuse(system)
    assert dead_letters.forget(system.store, datetime.now(UTC)) == 0
    shown = ask(system, "GET", f"/dead-letters/{line['id']}").json()
    assert shown["discarded"]["reason"] == dead_letters.SETTLED
    system.store.remove(keys.PRODUCTS, shown["letter"]["outcome"])
    assert listed(system) == []
    bring(system, asked("replay"))
    assert [one["times"] for one in listed(system)] == [2]


# Counted as listed -------------------------------------------------------------------------------------------------------


def test_a_letter_that_was_discarded_and_came_again_is_counted_as_it_is_listed(system: Services) -> None:
    bring(system, asked("missing"))
    (line,) = listed(system)
    ask(system, "POST", f"/dead-letters/{line['id']}/discard", params={"reason": "a broken model"})
    assert listed(system) == []
    bring(system, asked("replay"))
    assert len(listed(system)) == 1


@pytest.mark.parametrize("bad", [b"{", b"", b"{}"])
def test_a_letter_that_cannot_be_read_is_reported_and_counted_as_it_is_listed(system: Services, bad: bytes) -> None:
    name = f"{len(bad):032x}"
    system.store.put(keys.PRODUCTS, keys.dead_letter(name), bad)
    assert listed(system) == []
    assert any(key == keys.dead_letter(name) for _, key, _ in damage._reported)


def test_a_letter_of_another_name_is_not_listed(system: Services) -> None:
    bring(system, letter())
    (line,) = listed(system)
    stored = system.store.get(keys.PRODUCTS, keys.dead_letter(line["id"]))
    system.store.put(keys.PRODUCTS, keys.dead_letter("0" * 32), stored)
    assert [one["id"] for one in listed(system)] == [line["id"]]


def test_a_letter_in_the_place_of_one_that_could_not_be_read_is_listed_whatever_was_discarded(
    system: Services,
) -> None:
    bring(system, asked("missing"), asked("replay"))
    (line,) = listed(system)
    ask(system, "POST", f"/dead-letters/{line['id']}/discard", params={"reason": "a broken model"})
    system.store.put(keys.PRODUCTS, keys.dead_letter(line["id"]), b"{")
    bring(system, asked("missing"))
    assert [one["times"] for one in listed(system)] == [1]


# Of earlier releases -----------------------------------------------------------------------------------------------------


def earlier(event: CloudEvent, **other: Any) -> DeadLetterRecord:
    """Return what an earlier release kept of a dead letter."""
    now = datetime.now(UTC) - timedelta(hours=1)
    return DeadLetterRecord(
        **{
            "id": dead_letters.identifier(event.id, "predictions"),
            "function": "predictions",
            "subject": WHO.subject,
            "type": event.type,
            "reason": "it broke",
            "error": "WorkFailed",
            "status": 500,
            "times": 3,
            "first": now,
            "last": now,
            "attributes": {"id": event.id},
            **other,
        }
    )


def test_a_letter_of_an_earlier_release_is_listed_and_settled_by_an_outcome_that_came_after_it(
    system: Services,
) -> None:
    dead_letters.record(system.store, earlier(letter()))
    assert [one["times"] for one in listed(system)] == [3]
    refuse(system)
    assert listed(system) == []


def test_a_letter_of_an_earlier_release_is_counted_on_when_its_event_is_given_up_again(system: Services) -> None:
    old = earlier(letter())
    dead_letters.record(system.store, old)
    dead_letters.discard(system.store, old, "a broken model")
    bring(system, letter())
    (line,) = listed(system)
    assert line["times"] == 4 and line["id"] != old.id
    assert [one.key for one in system.store.list(keys.PRODUCTS, keys.DEAD_LETTERS)] == [keys.dead_letter(line["id"])]


def test_a_letter_of_an_earlier_release_with_another_answer_stays_beside_the_new_one(system: Services) -> None:
    dead_letters.record(system.store, earlier(letter(), reason="another fault"))
    bring(system, letter())
    assert sorted(one["times"] for one in listed(system)) == [1, 3]


def test_with_a_letter_goes_what_was_discarded_of_it(system: Services) -> None:
    bring(system, letter())
    (line,) = listed(system)
    ask(system, "POST", f"/dead-letters/{line['id']}/discard", params={"reason": "a broken model"})
    system.store.put(keys.PRODUCTS, keys.discarded("0" * 32), b"{}")
    assert dead_letters.forget(system.store, datetime.now(UTC)) == 1
    assert dead_letters.forget(system.store, datetime.now(UTC) + timedelta(days=91)) == 2
    assert list(system.store.list(keys.PRODUCTS, keys.DEAD_LETTERS)) == []
