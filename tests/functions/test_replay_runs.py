"""A run makes what was planned, once, behind live work and within its limits, whatever happens to its process."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.kafka import from_record, to_record
from layerscope.events.log import LogUnavailable
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import EVENTS, trigger_group
from layerscope.functions.replay.func import PING, Replay
from layerscope.functions.replay.live_work import LiveWork
from layerscope.functions.replay.run import RunAtWork
from layerscope.functions.replay.runs_at_work import RunsAtWork
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.events import ModelAdmitted, ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products, product_named
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.replays import Run, Selection
from layerscope.stores.product_store import manifest
from layerscope.stores.replays import report, runs
from layerscope.stores.replays.plan import plan
from tests.functions.bucket import Bucket, add_dataset, evaluation, services
from tests.stores.test_replay_plan import complete, predictions

pytestmark = pytest.mark.slow

MODELS = [Identity("tiny", "net", str(n)) for n in range(6)]


@pytest.fixture
def system(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    return made


class Functions:
    """The functions of products, as the log wakes them: a request makes a product, and with it what stands on it."""

    def __init__(self, system: Services, *, fails: str = "") -> None:
        self.system = system
        self.fails = fails
        self.made: Counter[tuple[str, str]] = Counter()
        self.asked: list[tuple[str, str]] = []
        self.most = 0
        self._consumer = system.log.consumer(EVENTS, "the functions of this test", start="earliest")

    async def work(self) -> None:
        while True:
            for record in self._consumer.poll(0):
                event = from_record(record)
                if event is not None and event.type == ProductRequested.type and event.extensions["product"] != "index":
                    self.asked.append((event.extensions["product"], event.subject))
                    self.make(event.extensions["product"], Identity.parse(event.subject))
            await asyncio.sleep(0.002)

    def make(self, name: str, identity: Identity) -> None:
        bucket, product = Bucket(self.system.store, identity), product_named(name)
        inputs = [manifest(bucket.store, one, bucket.facts) for one in product.declared.inputs]
        if any(one is None for one in inputs):
            return
        if name == self.fails:
            bucket.fail(product, "it broke")
            return
        if manifest(bucket.store, product, bucket.facts) is None:
            self.made[name, identity.subject] += 1
            if product is Predictions:
                bucket.write(predictions())
            elif product is Evaluation:
                bucket.write(evaluation(0.75))
            else:
                bucket.refuse(product)
        if product is Predictions:
            for above in declared_products():
                if Predictions in above.declared.inputs:
                    self.make(above.declared.name, identity)


@asynccontextmanager
async def working(functions: Functions) -> AsyncIterator[None]:
    task = asyncio.create_task(functions.work())
    try:
        yield
    finally:
        task.cancel()


def begun(system: Services, *, rate: float = 1000, in_flight: int = 1000, **selection: Any) -> Run:
    made = plan(system.store, system.vectors, Selection(**selection))
    return runs.begin(system.store, made, rate=rate, in_flight=in_flight)


def at_work(system: Services, run: Run) -> RunAtWork:
    return RunAtWork(system, run, tick=0.005, lost=60)


def carried_out(system: Services, run: Run, functions: Functions) -> None:
    async def carry_out() -> None:
        async with asyncio.timeout(300), working(functions):
            await at_work(system, run).carry_out()

    asyncio.run(carry_out())


def published(system: Services) -> list[CloudEvent]:
    found = [from_record(one) for one in system.log.backlog(EVENTS, "a group that never read")]
    return [one for one in found if one is not None]


@pytest.fixture
def stored(system: Services) -> AsyncIterator[Services]:  # type: ignore[misc]
    """Return a system whose models are complete but for predictions, whose recipe was raised, and what stands on them."""
    for one in MODELS:
        complete(system, one)
    with mock.patch.object(Predictions, "declared", replace(Predictions.declared, recipe=2)):
        yield system


def test_exactly_the_product_and_what_stands_on_it_is_made_once_a_model(stored: Services) -> None:
    functions = Functions(stored)
    run = begun(stored, products=("predictions",))
    carried_out(stored, run, functions)
    made = {"predictions", "evaluation", "confusion_matrix", "example_images", "findings"}
    assert functions.made == Counter({(name, one.subject): 1 for name in made for one in MODELS})
    assert sorted(functions.asked) == [("predictions", one.subject) for one in MODELS]
    found = report.of_run(stored.store, run)
    assert (found.state, found.planned, found.asked) == ("finished", 30, 6)
    assert (found.computed, found.refused, found.there, found.failed, found.none) == (12, 18, 0, 0, 0)
    # And the report says what changed: the accuracy of each evaluation, which was 0.5
    changed = {one.subject: one.figures["accuracy"] for one in found.changes if one.function == "evaluation"}
    assert changed == {one.subject: (0.5, 0.75) for one in MODELS}
    events = published(stored)
    assert {one.extensions["replayid"] for one in events} == {run.id}
    assert {one.extensions["lane"] for one in events} == {"replay"}
    said = Counter(one.type.removeprefix("io.layerscope.") for one in events)
    assert said == {"replay.started.v1": 1, "product.requested.v1": 6, "replay.finished.v1": 1}


@pytest.mark.parametrize("seed", range(10))
def test_a_run_whose_process_ends_at_any_moment_is_gone_on_with_and_makes_nothing_twice(
    stored: Services, seed: int
) -> None:
    functions, chance = Functions(stored), random.Random(seed)
    run = begun(stored, in_flight=2, products=("predictions",))

    async def killed_again_and_again() -> int:
        ends = 0
        async with working(functions):
            while runs.ending(stored.store, run) is None:
                task = asyncio.create_task(RunAtWork(stored, run, tick=0.002, lost=0.05).carry_out())
                longer = 1 + ends / 20  # a busy machine may begin nothing in the first of these spans
                await asyncio.wait([task], timeout=longer * chance.uniform(0.005, 0.06))
                ends += not task.done()
                task.cancel()
                await asyncio.wait([task])
        return ends

    assert asyncio.run(killed_again_and_again()) > 0
    found = report.of_run(stored.store, run)
    assert set(functions.made.values()) == {1}
    assert len(functions.made) == found.planned == 30
    assert found.computed + found.refused + found.there == 30


def test_no_more_are_under_way_than_the_run_allows(stored: Services) -> None:
    run = begun(stored, in_flight=2, products=("predictions",))
    asked: list[int] = []

    async def without_functions() -> None:
        task = asyncio.create_task(at_work(stored, run).carry_out())
        for _ in range(20):
            await asyncio.sleep(0.01)
            asked.append(sum(one.type == ProductRequested.type for one in published(stored)))
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(without_functions())
    assert max(asked) == 2
    carried_out(stored, run, Functions(stored))
    assert report.of_run(stored.store, run).state == "finished"


def test_no_more_are_asked_for_in_a_second_than_the_run_allows(stored: Services) -> None:
    run = begun(stored, rate=20, products=("predictions",))

    async def timed() -> float:
        async with asyncio.timeout(300), working(Functions(stored)):
            start = asyncio.get_running_loop().time()
            await at_work(stored, run).carry_out()
            return asyncio.get_running_loop().time() - start

    assert asyncio.run(timed()) >= (len(MODELS) - 1) / 20


def test_live_work_goes_first(stored: Services) -> None:
    run = begun(stored, products=("predictions",))
    who = {"dataset": "tiny", "model": "live", "version": "1"}
    told = ModelAdmitted(**who, key="k", etag="e", content="c" * 64)
    groups = [trigger_group("layerscope", one.declared.name.replace("_", "-")) for one in declared_products()]
    live = [stored.log.consumer(EVENTS, one, start="latest") for one in groups]
    stored.log.publish(EVENTS, to_record(compose(told, source="/tests", subject="tiny/live/1")))
    functions = Functions(stored)

    async def carry_out() -> str:
        async with asyncio.timeout(300), working(functions):
            task = asyncio.create_task(at_work(stored, run).carry_out())
            await asyncio.sleep(0.3)
            waits = report.of_run(stored.store, run).waits_for
            assert functions.asked == []
            for one in live:  # the functions have taken their live events
                one.commit(dict.fromkeys(one.partitions, 1000))
            await task
            return waits

    waits = asyncio.run(carry_out())
    assert waits.startswith("live work: ") and "1 for predictions" in waits
    assert len(functions.asked) == len(MODELS)


def test_live_work_that_does_not_move_is_not_waited_for_whatever_is_added_behind_it(system: Services) -> None:
    groups = [trigger_group("layerscope", one.declared.name.replace("_", "-")) for one in declared_products()]
    for one in groups:
        system.log.consumer(EVENTS, one, start="latest")

    def told(version: str) -> None:
        data = ModelAdmitted(dataset="tiny", model="live", version=version, key="k", etag="e", content="c" * 64)
        system.log.publish(EVENTS, to_record(compose(data, source="/tests", subject="tiny/live/1")))

    live = LiveWork(system.log, system.tenant, period=0, stuck=0.2)
    assert live.ahead() == ""
    told("1")
    assert "1 for predictions" in live.ahead()
    time.sleep(0.25)
    told("2")
    assert live.ahead() == ""


def test_a_cancelled_run_asks_for_nothing_more(stored: Services) -> None:
    run = begun(stored, in_flight=1, products=("predictions",))
    runs.cancel(stored.store, run)
    carried_out(stored, run, Functions(stored))
    found = report.of_run(stored.store, run)
    assert (found.state, found.asked) == ("cancelled", 0)


def test_what_fails_is_told_with_its_reason_and_what_stands_on_it_too(stored: Services) -> None:
    run = begun(stored, products=("predictions",), models=("net",), versions=("0",))
    carried_out(stored, run, Functions(stored, fails="predictions"))
    found = report.of_run(stored.store, run)
    assert (found.state, found.failed, found.none, found.computed) == ("finished", 1, 4, 0)
    assert {(one.function, one.reason) for one in found.unmade} >= {
        ("predictions", "it broke"),
        ("evaluation", "predictions, which it stands on, did not come"),
    }


def test_a_failure_that_was_selected_is_not_taken_for_a_new_one(system: Services) -> None:
    bucket = Bucket(system.store, MODELS[0])
    bucket.admit()
    bucket.fail(Predictions, "out of memory")
    run = begun(system, states=("failed",))
    functions = Functions(system)
    carried_out(system, run, functions)
    assert functions.made["predictions", MODELS[0].subject] == 1
    assert report.of_run(system.store, run).failed == 0


def test_what_somebody_else_made_meanwhile_was_there(stored: Services) -> None:
    run = begun(stored, products=("predictions",))
    functions = Functions(stored)
    functions.make("predictions", MODELS[0])
    carried_out(stored, run, functions)
    found = report.of_run(stored.store, run)
    assert (found.there, found.asked) == (1, 5)
    assert ("predictions", MODELS[0].subject) not in functions.asked


def test_an_upload_that_goes_meanwhile_does_not_keep_a_run_from_its_end(stored: Services) -> None:
    run = begun(stored, products=("predictions",), versions=("0",))
    Bucket(stored.store, MODELS[0]).remove()

    async def carry_out() -> None:
        async with asyncio.timeout(300):
            await RunAtWork(stored, run, tick=0.005, lost=0.02).carry_out()

    consumer_of_all(stored)
    asyncio.run(carry_out())
    found = report.of_run(stored.store, run)
    assert found.state == "finished"
    assert {(one.function, one.reason) for one in found.unmade} >= {("predictions", "the upload is gone")}


def consumer_of_all(system: Services) -> None:
    """Have every function take what comes, as when there is nothing to do for it."""
    for name in ["admit", *(one.declared.name for one in declared_products())]:
        for lane in ("", "-replay"):
            group = trigger_group("layerscope", name.replace("_", "-") + lane)
            system.log.consumer(EVENTS, group, start="earliest").commit(dict.fromkeys(range(3), 10000))


class Down(MemoryLog):
    """A log that does not answer for a while."""

    times = 5

    def publish(self, *given: Any) -> None:
        if self.times:
            self.times -= 1
            raise LogUnavailable("Kafka is down")
        super().publish(*given)


def test_what_is_down_is_waited_for(stored: Services) -> None:
    there = replace(stored, log=Down())
    functions = Functions(there)
    run = begun(there, products=("predictions",))
    carried_out_after_loss(there, run, functions)
    assert report.of_run(there.store, run).computed == 12


def carried_out_after_loss(system: Services, run: Run, functions: Functions) -> None:
    async def carry_out() -> None:
        async with asyncio.timeout(300), working(functions):
            await RunAtWork(system, run, tick=0.005, lost=0.05).carry_out()

    asyncio.run(carry_out())


def eventually(what: Callable[[], bool]) -> Any:
    async def waited() -> None:
        async with asyncio.timeout(300):
            while not what():
                await asyncio.sleep(0.01)

    return waited()


def ping() -> CloudEvent:
    return CloudEvent({"id": "1", "source": "/pingsources/missing", "type": PING, "subject": "missing"})


def test_the_timer_takes_up_runs_and_leaves_to_them_what_they_plan(stored: Services) -> None:
    run = begun(stored, in_flight=1, products=("predictions",))
    replay = Replay()
    replay.runs = RunsAtWork(tick=0.005)
    replay.attach(stored)

    async def woken() -> None:
        await replay.respond(ping())
        assert not [
            one
            for one in published(stored)
            if one.type == ProductRequested.type
            and one.extensions["product"] == "predictions"
            and one.extensions["replayid"] != run.id
        ]
        async with working(Functions(stored)):
            await eventually(lambda: runs.ending(stored.store, run) is not None)
        replay.stop()

    asyncio.run(woken())
    assert report.of_run(stored.store, run).state == "finished"


def test_two_that_look_take_a_run_up_once(stored: Services) -> None:
    begun(stored, in_flight=1, products=("predictions",))

    async def looked() -> int:
        both = RunsAtWork(tick=0.005)
        await asyncio.gather(both.take_up(stored), both.take_up(stored))
        await asyncio.sleep(0.05)
        both.stop()
        return sum(one.type == ProductRequested.type for one in published(stored))

    assert asyncio.run(looked()) == 1


def test_a_run_is_kept_and_then_forgotten(stored: Services) -> None:
    run = begun(stored, products=("predictions",))
    carried_out(stored, run, Functions(stored))
    assert runs.forget(stored.store, run.began + runs.KEPT / 2) == []
    assert runs.forget(stored.store, run.began + 2 * runs.KEPT) == [run.id]
    assert not list(stored.store.list(keys.PRODUCTS, keys.REPLAYS))
