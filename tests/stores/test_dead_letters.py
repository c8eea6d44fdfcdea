"""What is asked of the bucket for dead letters is little, and one that it does not give keeps nothing else waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.replays import DeadLetterRecord
from layerscope.stores import dead_letters
from tests.functions.bucket import Bucket, add_dataset
from tests.stores.memory_store import MemoryStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WHO = Identity("tiny", "net", "1")


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.clock = lambda: NOW
    return made


def kept(store: MemoryStore, number: int, function: str = "summary", subject: str = WHO.subject) -> str:
    cause = dead_letters.of_cause(
        function, subject, "e", status=500, error="E", reason=f"fault {chr(97 + number)}", is_beside=False
    )
    letter = DeadLetterRecord(
        id=cause, function=function, subject=subject, type="t", reason="r", first=NOW, last=NOW, outcome=""
    )
    return dead_letters.record(store, letter).id


def opened(store: MemoryStore) -> set[str]:
    return {one.id for one in dead_letters.open_letters(store)}


def test_a_model_is_listed_once_for_all_of_its_letters_and_what_was_read_is_not_read_again(store: MemoryStore) -> None:
    made = {kept(store, number, subject=f"tiny/net/{number % 3}") for number in range(12)}
    dead_letters.discard(store, next(dead_letters.open_letters(store)), "why")
    store.requests.clear()
    assert len(opened(store)) == len(made) - 1
    assert (store.requests["list"], store.requests["get"]) == (
        1 + 3,
        len(made),
    )  # one was read before, and one mark is new
    store.requests.clear()
    assert len(opened(store)) == len(made) - 1
    assert (store.requests["list"], store.requests["get"]) == (1 + 3, 0)


@pytest.mark.parametrize(
    ("function", "subject"),
    [("index", WHO.subject), ("announce", "partition:0#12"), ("admit", "a key"), ("nobody", "")],
)
def test_a_letter_that_no_outcome_can_answer_stays_and_asks_for_no_list(
    store: MemoryStore, function: str, subject: str
) -> None:
    name = kept(store, 0, function, subject)
    store.requests.clear()
    assert opened(store) == {name}
    assert store.requests["list"] == 1


def test_a_failure_and_an_outcome_of_another_function_or_of_before_settle_nothing(store: MemoryStore) -> None:
    add_dataset(store)
    bucket = Bucket(store, WHO)
    bucket.admit()
    store.clock = lambda: NOW - timedelta(seconds=1)
    bucket.refuse(Predictions)
    store.clock = lambda: NOW + timedelta(seconds=1)
    bucket.refuse_rest()
    summary, predictions = kept(store, 0), kept(store, 0, "predictions")
    assert opened(store) == {predictions}
    for one in list(store.list(keys.PRODUCTS, keys.manifests_of(WHO))):
        if one.key.split("/")[5] == "summary":
            store.remove(keys.PRODUCTS, one.key)
            store.put(keys.PRODUCTS, keys.failure(one.key), b"{}")
    assert opened(store) == {summary, predictions}


def test_a_letter_that_the_store_does_not_give_keeps_no_old_one(store: MemoryStore) -> None:
    old, other = kept(store, 0), kept(store, 1)
    later = NOW + dead_letters.KEPT + timedelta(days=1)
    store.clock = lambda: later
    store.put(keys.PRODUCTS, keys.dead_letter(other), store.get(keys.PRODUCTS, keys.dead_letter(other)))
    store.unreadable.add(keys.dead_letter(other))
    assert dead_letters.forget(store, later) == 1
    assert store.head(keys.PRODUCTS, keys.dead_letter(old)) is None
    store.is_down = True
    with pytest.raises(Unavailable):
        dead_letters.forget(store, later)
