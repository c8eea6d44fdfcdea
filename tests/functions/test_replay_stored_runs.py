"""A part of a run that cannot be read counts as absent wherever it is looked at, is replaced, and keeps no other run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.guard import Guard
from layerscope.functions.replay.runs_at_work import RunsAtWork
from layerscope.schemas import keys
from layerscope.schemas.replays import Acceptance, Ending, Run, Selection
from layerscope.stores.replays import report, runs
from layerscope.stores.replays.plan import plan
from tests.functions.asking import opened
from tests.functions.stored_models import Stored

BAD = [b"", b"{", b"\x00\xff", b'{"schema": 99}', b"[]"]
STRAY = [
    "replays/odd/plan.json",
    "replays/20261399T000000-00000000/plan.json",
    "replays/plan.json",
    "replays/a/b/c.json",
]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def begun(stored: Stored, **selection: Any) -> Run:
    """Begin a run that has nothing left to do, as all that is selected is there by the time it is carried out."""
    made = plan(stored.store, stored.vectors, Selection(**selection))
    return runs.begin(stored.store, made, rate=1000, in_flight=1000)


def until(stored: Stored, holds: Callable[[], bool], *, looks: int = 200) -> bool:
    """Tell whether something comes to hold while runs are taken up."""

    async def looked() -> bool:
        work = RunsAtWork(tick=0.005)
        try:
            for _ in range(looks):
                await work.take_up(stored.services)
                await asyncio.sleep(0.01)
                if await asyncio.to_thread(holds):
                    return True
            return False
        finally:
            work.stop()

    return asyncio.run(looked())


def damage(stored: Stored, run: Run, part: str, content: bytes) -> None:
    stored.store.put(keys.PRODUCTS, keys.replay(run.id, part), content)


def answered(stored: Stored, path: str, method: str = "GET") -> tuple[int, Any]:
    function = QueryFunction()
    function.attach(stored.services, Guard())

    async def asked() -> tuple[int, Any]:
        async with opened(function) as client:
            answer = await client.request(method, path)
            return answer.status_code, answer.json()

    return asyncio.run(asked())


@pytest.mark.parametrize("content", BAD)
def test_a_run_whose_end_cannot_be_read_is_taken_up_and_ends(stored: Stored, content: bytes) -> None:
    run = begun(stored)
    damage(stored, run, "end", content)
    assert runs.identifiers(stored.store) == {run.id: False}
    assert report.of_run(stored.store, run).state == "running"
    assert until(stored, lambda: runs.ending(stored.store, run) is not None)
    assert runs.identifiers(stored.store) == {run.id: True}
    assert Ending.from_bytes(stored.store.get(keys.PRODUCTS, keys.replay(run.id, "end"))).state == "finished"
    assert report.of_run(stored.store, run).state == "finished"


def test_a_run_whose_end_cannot_be_read_is_cancelled_as_any_other(stored: Stored) -> None:
    run = begun(stored, force=True, products=("summary",))
    damage(stored, run, "end", b"")
    assert answered(stored, f"/replays/{run.id}/cancel", "POST")[0] == 200
    assert until(stored, lambda: runs.ending(stored.store, run) is not None)
    assert report.of_run(stored.store, run).state == "cancelled"


def test_the_first_end_that_is_written_stays(stored: Stored) -> None:
    run = begun(stored)
    first, second = Ending(state="cancelled", ended=run.began), Ending(state="finished", ended=run.began)
    runs.end(stored.store, run, first)
    runs.end(stored.store, run, second)
    assert runs.ending(stored.store, run) == first


@pytest.mark.parametrize("content", BAD)
def test_an_acceptance_that_cannot_be_read_is_written_again_and_claims_nothing(stored: Stored, content: bytes) -> None:
    run = begun(stored, force=True, products=("summary",))
    runs.end(stored.store, run, Ending(state="finished", ended=run.began))
    made = runs.progress(stored.store, run).model_copy(update={"states": "c" * len(run.entries)})
    runs.write_progress(stored.store, run, made)
    runs.accept(stored.store, run)
    damage(stored, run, "accepted", content)
    assert runs.identifiers(stored.store) == {run.id: False}
    assert until(stored, lambda: runs.acceptance(stored.store, run) is not None)
    assert runs.identifiers(stored.store) == {run.id: True}
    done = Acceptance.from_bytes(stored.store.get(keys.PRODUCTS, keys.replay(run.id, "accepted")))
    assert (done.replaced, done.equal) == (0, 0)
    assert {one.subject for one in done.left} == {one.subject for one in stored.identities}
    assert all("damaged" in one.reason for one in done.left)


@pytest.mark.parametrize("content", BAD)
def test_progress_that_cannot_be_read_is_none_and_is_made_again(stored: Stored, content: bytes) -> None:
    run = begun(stored)
    damage(stored, run, "progress", content)
    assert until(stored, lambda: runs.ending(stored.store, run) is not None)


def test_progress_in_letters_that_nobody_writes_is_none(stored: Stored) -> None:
    run = begun(stored, force=True, products=("summary",))
    made = runs.progress(stored.store, run)
    damage(stored, run, "progress", made.model_copy(update={"states": "x" * len(run.entries)}).to_bytes())
    assert runs.progress(stored.store, run).states == "." * len(run.entries)


@pytest.mark.parametrize("content", BAD)
def test_a_run_whose_plan_cannot_be_read_is_named_stops_no_other_and_is_forgotten(
    stored: Stored, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lost, other = begun(stored), begun(stored)
    damage(stored, lost, "plan", content)
    with caplog.at_level(logging.WARNING):
        assert until(stored, lambda: runs.ending(stored.store, other) is not None)
    assert keys.replay(lost.id, "plan") in caplog.text
    status, listed = answered(stored, "/replays")
    assert (status, [one["id"] for one in listed["runs"]], listed["damaged"]) == (200, [other.id], [lost.id])
    status, said = answered(stored, f"/replays/{lost.id}")
    assert (status, said["code"]) == (404, "damaged-run")
    assert runs.forget(stored.store, lost.began + runs.KEPT / 2) == []
    assert set(runs.forget(stored.store, lost.began + 2 * runs.KEPT)) == {lost.id, other.id}
    assert not list(stored.store.list(keys.PRODUCTS, keys.REPLAYS))


def test_the_plan_of_another_run_is_not_the_one_that_belongs_there(stored: Stored) -> None:
    run, other = begun(stored), begun(stored)
    damage(stored, run, "plan", other.to_bytes())
    assert runs.run(stored.store, run.id) is None


@pytest.mark.parametrize("key", STRAY)
def test_what_is_of_no_run_is_reported_left_alone_and_stops_nothing(
    stored: Stored, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = begun(stored)
    stored.store.put(keys.PRODUCTS, key, run.to_bytes())
    with caplog.at_level(logging.WARNING):
        assert runs.identifiers(stored.store) == {run.id: False}
    assert f"{key} is of no run" in caplog.text
    assert until(stored, lambda: runs.ending(stored.store, run) is not None)
    assert runs.forget(stored.store, run.began + 2 * runs.KEPT) == [run.id]
    assert [one.key for one in stored.store.list(keys.PRODUCTS, keys.REPLAYS)] == [key]


def test_who_looks_for_runs_goes_on_looking_and_forgetting_whatever_lies_there(stored: Stored) -> None:
    for part in ("plan", "end"):
        stored.store.put(keys.PRODUCTS, f"replays/odd/{part}.json", b"")
    old = begun(stored).model_copy(update={"id": "20200101T000000-00000000"})
    damage(stored, old, "plan", old.to_bytes())
    runs.end(stored.store, old, Ending(state="finished", ended=old.began))

    def is_forgotten() -> bool:
        return not list(stored.store.list(keys.PRODUCTS, keys.replay(old.id, "")[: -len(".json")]))

    async def watched() -> bool:
        work = RunsAtWork(tick=0.005)
        watching = asyncio.create_task(work.watch(stored.services))
        async with asyncio.timeout(300):
            while not watching.done() and not await asyncio.to_thread(is_forgotten):
                await asyncio.sleep(0.01)
        goes_on = not watching.done()
        watching.cancel()
        work.stop()
        return goes_on

    assert asyncio.run(watched())


@pytest.mark.parametrize("part", ["plan", "progress", "end", "accepted"])
def test_an_object_that_the_store_cannot_give_keeps_its_own_run_alone(stored: Stored, part: str) -> None:
    held, other = begun(stored, force=True, products=("summary",)), begun(stored)
    damage(stored, held, "end", Ending(state="finished", ended=held.began).to_bytes())
    damage(stored, held, "accept", b"{}")
    damage(stored, held, "accepted", Acceptance(at=held.began, replaced=0, equal=0).to_bytes())
    if part != "accepted":
        stored.store.remove(keys.PRODUCTS, keys.replay(held.id, "accepted"))
    if part == "progress":
        stored.store.remove(keys.PRODUCTS, keys.replay(held.id, "end"))
        damage(stored, held, "progress", runs.progress(stored.store, held).to_bytes())
    stored.store.unreadable.add(keys.replay(held.id, part))
    assert until(stored, lambda: runs.ending(stored.store, other) is not None)


def test_what_a_process_left_when_it_ended_while_it_forgot_is_forgotten_too(stored: Stored) -> None:
    run = begun(stored)
    runs.end(stored.store, run, Ending(state="finished", ended=run.began))
    stored.store.remove(keys.PRODUCTS, keys.replay(run.id, "plan"))
    assert runs.identifiers(stored.store) == {}
    runs.forget(stored.store, run.began + runs.KEPT + timedelta(days=1))
    assert not list(stored.store.list(keys.PRODUCTS, keys.REPLAYS))


def test_a_run_that_has_ended_meanwhile_is_not_accepted_without_a_wish(stored: Stored) -> None:
    run = begun(stored, force=True, products=("summary",))

    async def raced() -> None:
        work = RunsAtWork(tick=0.005)
        before = stored.store.list

        def ends_after_the_list(bucket: str, prefix: str = "", *, after: str = "") -> Any:
            found = list(before(bucket, prefix, after=after))
            if prefix == keys.REPLAYS:
                runs.end(stored.store, run, Ending(state="finished", ended=run.began))
            return iter(found)

        stored.store.list = ends_after_the_list  # type: ignore[method-assign]
        await work.take_up(stored.services)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(raced())
    assert runs.acceptance(stored.store, run) is None
