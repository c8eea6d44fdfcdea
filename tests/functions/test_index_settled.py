"""Events about a model whose rows are as the bucket says: answered alike, and without making the rows again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.index.func import new
from layerscope.functions.index.settled import CLOCKS, Answered, Settled
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.events import IndexUpdated, ProductRequested
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products import declared_products
from layerscope.stores.cache import MemoryCache
from layerscope.stores.catalogue import Present
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.index_rows import CatalogueRow, Replacement
from layerscope.stores.object_store import Object
from tests.functions.bucket import Bucket, add_dataset, evaluation, layer_vectors, ok_layers, services
from tests.functions.test_index import WHO, about
from tests.stores.exact_vector_store import NumpyStore


class Reading(DirectoryStore):
    """A bucket that counts what is read from it, and how often it is asked what there is."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.manifests = self.listings = 0

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        self.listings += 1
        return super().list(bucket, prefix, after=after)

    def get(self, bucket: str, key: str, *, etag: str | None = None) -> bytes:
        self.manifests += key.startswith("manifests/")
        return super().get(bucket, key, etag=etag)


def system(tmp_path: Path) -> tuple[Services, Reading, EventFunction]:
    plain = services(tmp_path)
    add_dataset(plain.store)
    store = Reading(tmp_path)
    given = Services(store, NumpyStore(), MemoryCache(), plain.log, plain.scratch)
    function = new()
    function.attach(given)
    return given, store, function


def post(function: EventFunction, *sent: CloudEvent) -> list[httpx.Response]:
    async def posted() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=application(function))
        async with httpx.AsyncClient(transport=transport, base_url="http://index") as client:
            found = []
            for one in sent or (about(WHO),):
                headers, body = http.to_binary(one)
                found.append(await client.post("/", headers=headers, content=body))
            return found

    return asyncio.run(posted())


def line(given: Services) -> CatalogueRow | None:
    return given.vectors.line(WHO.subject)


def requested(number: int) -> CloudEvent:
    """Return one of several events about the model: each product of it is one."""
    product = declared_products()[number].declared.name
    return about(WHO, ProductRequested(dataset="tiny", model="net", version="1", product=product))


def test_in_a_backlog_about_one_model_the_first_event_does_the_work_and_says_so(tmp_path: Path) -> None:
    given, store, function = system(tmp_path)
    Bucket(given.store, WHO).settle(seed=1)
    [first] = post(function)
    assert first.status_code == 200
    read, generation = store.manifests, asyncio.run(given.cache.generation())
    assert read > 0
    rest = post(function, *map(requested, range(10)))
    assert {one.status_code for one in rest} == {204}
    assert store.manifests == read
    assert asyncio.run(given.cache.generation()) == generation  # nothing moved, so no cached answer is let go


def sent(seconds_ago: float, number: int = 0) -> CloudEvent:
    """Return an event about the model that was sent so long ago."""
    event = requested(number)
    attributes = {name: event.get_attributes()[name] for name in event.get_attributes() if name != "time"}
    time = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    return CloudEvent({**attributes, "time": time}, event.get_data())


def evaluated_after_a_look(given: Services, function: EventFunction) -> None:
    """Have the index look at a model, and give that an evaluation afterwards."""
    bucket = Bucket(given.store, WHO)
    bucket.admit()
    bucket.write(layer_vectors(bucket.facts, 1, ok_layers(2)))
    post(function)
    bucket.write(evaluation(0.5))


def test_what_was_sent_before_the_last_look_costs_no_request(tmp_path: Path) -> None:
    given, store, function = system(tmp_path)
    Bucket(given.store, WHO).settle(seed=1)
    post(function)
    listings = store.listings
    late = post(function, *(sent(CLOCKS.total_seconds() + 5, number) for number in range(5)))
    assert {one.status_code for one in late} == {204} and store.listings == listings
    # what was sent by a clock that may be behind, or is ahead, is looked for
    for fresh in (sent(CLOCKS.total_seconds() - 5), sent(-3_600)):
        post(function, fresh)
        assert store.listings > listings
        listings = store.listings


def test_what_came_between_two_looks_is_written_whatever_the_backlog_holds(tmp_path: Path) -> None:
    given, _, function = system(tmp_path)
    evaluated_after_a_look(given, function)
    post(function, sent(3_600))  # said long before
    assert (found := line(given)) is not None and found.test_accuracy is None
    post(function, sent(0))
    assert (found := line(given)) is not None and found.test_accuracy == 0.5


def test_an_event_of_long_ago_that_was_answered_is_answered_again(tmp_path: Path) -> None:
    given, _, function = system(tmp_path)
    Bucket(given.store, WHO).settle(seed=1)
    event = sent(3_600)
    [first], [again] = post(function, event), post(function, event)
    assert (again.status_code, again.content) == (200, first.content)


def test_the_event_that_was_answered_is_answered_again(tmp_path: Path) -> None:
    given, store, function = system(tmp_path)
    Bucket(given.store, WHO).settle(seed=1)
    [first] = post(function)
    read = store.manifests
    [again] = post(function)  # as where the answer was lost on its way
    assert (again.status_code, again.content, again.headers["ce-id"]) == (200, first.content, first.headers["ce-id"])
    assert store.manifests == read


def test_what_is_new_in_the_bucket_is_written(tmp_path: Path) -> None:
    given, _, function = system(tmp_path)
    evaluated_after_a_look(given, function)
    post(function)
    found = line(given)
    assert found is not None and found.test_accuracy == 0.5


def test_a_manifest_that_was_replaced_where_it_lay_is_read(tmp_path: Path) -> None:
    # Given rows of an evaluation, and another one that was put in its place, as an accepted replay does
    given, store, function = system(tmp_path)
    bucket = Bucket(given.store, WHO)
    bucket.settle(seed=1, accuracy=0.5)
    post(function)
    [key] = [one.key for one in store.list(keys.PRODUCTS, keys.manifests_of(WHO)) if "/evaluation/" in one.key]
    before = Manifest.model_validate_json(store.get(keys.PRODUCTS, key))
    taken = before.model_copy(update={"headline": {**before.headline, "accuracy": 0.9}})
    assert taken != before
    store.put(keys.PRODUCTS, key, taken.to_bytes())
    # Then the same list of keys is no reason to leave the rows
    post(function)
    found = line(given)
    assert found is not None and found.test_accuracy == 0.9


def test_an_index_that_was_emptied_is_written_again(tmp_path: Path) -> None:
    given, _, function = system(tmp_path)
    Bucket(given.store, WHO).settle(seed=1)
    post(function)
    written = line(given)
    given.vectors.replace([Replacement(WHO.subject, {}, None)])
    assert line(given) is None
    post(function)
    assert line(given) == written


def test_another_upload_at_the_same_key_is_looked_at(tmp_path: Path) -> None:
    given, _, function = system(tmp_path)
    bucket = Bucket(given.store, WHO)
    bucket.settle(seed=1)
    post(function)
    bucket.put(b"other weights")
    post(function)
    found = line(given)
    assert found is not None and found.state == "computing"


def test_a_model_that_is_gone_is_taken_out(tmp_path: Path) -> None:
    given, _, function = system(tmp_path)
    bucket = Bucket(given.store, WHO)
    bucket.settle(seed=1)
    post(function)
    bucket.remove()
    post(function, about(WHO), requested(0))
    assert line(given) is None


def test_only_so_many_models_are_remembered_those_of_the_latest_events() -> None:
    known = Settled(most=2)
    facts = [IndexUpdated(dataset="d", model="m", version=str(k), rows=k, fingerprint="f") for k in range(3)]
    answers = [Answered(fact, "event") for fact in facts]
    present = Present("f", "o")
    known.remember("d/m/0", present, answers[0])
    known.remember("d/m/1", present, answers[1])
    assert known.answered("d/m/0", present) == answers[0]
    known.remember("d/m/2", present, answers[2])
    assert known.answered("d/m/1", present) is None and known.answered("d/m/0", present) == answers[0]
    assert known.answered("d/m/0", Present("f", "other objects")) is None
    assert known.answered("d/m/0", None) is None
    now = datetime.now(UTC)
    for k in range(3):
        known.looked(f"d/m/{k}", now)
    assert not known.is_told("d/m/2", "other", None)  # an event without a time
    assert [known.is_told(f"d/m/{k}", "other", now - timedelta(hours=1)) for k in range(3)] == [False, True, True]
