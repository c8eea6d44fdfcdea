"""What operators ask of `query`: plans and runs of replay, and dead letters. What it writes, `replay` carries out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.replay_selection import Selected
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Refused
from layerscope.schemas.operations import (
    DeadLetterAnswer,
    DeadLetterList,
    PlanAnswer,
    RunAnswer,
    RunList,
)
from layerscope.schemas.queries import ErrorAnswer
from layerscope.schemas.replays import RUN_ID, DeadLetterRecord, Plan, Run, Selection, Text
from layerscope.stores import dead_letters
from layerscope.stores.replays import report, runs
from layerscope.stores.replays.logged import logged
from layerscope.stores.replays.plan import plan

RunName = Annotated[str, Path(pattern=RUN_ID)]
LetterName = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Digest = Annotated[str, Query(pattern="^[0-9a-f]{32}$", description="of the plan that is meant")]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (401, 403, 404, 409, 422, 500, 503)
}
RUNS_LISTED = 50


def routes(given: Callable[[], Services]) -> APIRouter:
    """Return the routes under `/replays` and `/dead-letters`; who may use them, the guard decides."""
    made = APIRouter(responses=ERRORS)
    made.include_router(_replays(given))
    made.include_router(_letters(given))
    return made


def _replays(given: Callable[[], Services]) -> APIRouter:
    routes = APIRouter()

    @routes.get("/replays", response_model=RunList)
    async def listed() -> Any:
        """List the newest runs of replay."""
        return await asyncio.to_thread(_listed, given())

    @routes.get("/replays/plan", response_model=PlanAnswer)
    async def planned(selection: Selected) -> Any:
        """Say what a run would make, and change nothing."""
        return report.of_plan(await asyncio.to_thread(_planned, given(), selection))

    @routes.post("/replays", response_model=RunAnswer)
    async def begun(
        selection: Selected,
        digest: Digest,
        rate: Annotated[float, Query(gt=0, le=1000, description="requests a second, at most")] = 20,
        in_flight: Annotated[int, Query(ge=1, le=1000, description="asked for and not there yet, at most")] = 8,
    ) -> Any:
        """Start a run of exactly the plan with this digest."""
        return await asyncio.to_thread(_begun, given(), selection, digest, rate, in_flight)

    @routes.get("/replays/{run}", response_model=RunAnswer)
    async def one(run: RunName) -> Any:
        """Say how far a run has come, and what came of it."""
        return await asyncio.to_thread(lambda: report.of_run(given().store, _run(given(), run)))

    @routes.post("/replays/{run}/cancel", response_model=RunAnswer)
    async def cancelled(run: RunName) -> Any:
        """Have a run ask for nothing more; what is under way ends."""
        return await asyncio.to_thread(_cancelled, given(), run)

    @routes.post("/replays/{run}/accept", response_model=RunAnswer)
    async def accepted(run: RunName) -> Any:
        """Have what a run with force made take the place of what stood."""
        return await asyncio.to_thread(_accepted, given(), run)

    return routes


def _letters(given: Callable[[], Services]) -> APIRouter:
    routes = APIRouter()

    @routes.get("/dead-letters", response_model=DeadLetterList)
    async def listed(
        function: Annotated[str | None, Query(max_length=64)] = None,
        reason: Annotated[str | None, Query(max_length=200, description="a part of it")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Any:
        """List the dead letters that are open, and group them by function and reason.

        Nobody has discarded them, and what they asked for is not there.
        """
        return await asyncio.to_thread(_letters_listed, given(), function, reason, limit)

    @routes.get("/dead-letters/{letter}", response_model=DeadLetterAnswer)
    async def one(letter: LetterName) -> Any:
        """Show a dead letter: the event, the last answer, and how often it was given up."""
        return await asyncio.to_thread(lambda: report.of_letter(given().store, _letter(given(), letter)))

    @routes.post("/dead-letters/{letter}/discard", response_model=DeadLetterAnswer)
    async def discarded(letter: LetterName, reason: Annotated[Text, Query(description="why")]) -> Any:
        """Decide that nothing is to be done about a dead letter; the list leaves it out until it comes again."""
        return await asyncio.to_thread(_discarded, given(), letter, reason)

    return routes


def _listed(services: Services) -> RunList:
    names = list(runs.identifiers(services.store))[:RUNS_LISTED]
    found = {name: runs.run(services.store, name) for name in names}
    listed = tuple(report.of_run(services.store, one) for one in found.values() if one is not None)
    return RunList(runs=listed, damaged=tuple(name for name, one in found.items() if one is None))


def _planned(services: Services, selection: Selection) -> Plan:
    try:
        subjects = logged(services.log, services.tenant.events, selection)
    except Refused as refused:
        raise Unanswerable(422, refused.code, refused.message, refused.hint) from refused
    return plan(services.store, services.vectors, selection, subjects)


def _begun(services: Services, selection: Selection, digest: str, rate: float, in_flight: int) -> RunAnswer:
    made = _planned(services, selection)
    if made.digest != digest:
        message = f"The plan has moved: by now it has {len(made.entries)} outcomes, and the digest {made.digest}."
        raise Unanswerable(409, "plan-moved", message, "look at GET /replays/plan again, and start that")
    if not made.entries:
        raise Unanswerable(409, "nothing-to-do", "Nothing that is selected is to be made.", "select something else")
    if (same := runs.under_way(services.store, digest)) is not None:
        message = f"Run {same.id} makes exactly this already."
        raise Unanswerable(409, "already-running", message, f"GET /replays/{same.id}, or cancel it")
    return report.of_run(services.store, runs.begin(services.store, made, rate=rate, in_flight=in_flight))


def _cancelled(services: Services, name: str) -> RunAnswer:
    run = _run(services, name)
    if runs.ending(services.store, run) is None:
        runs.cancel(services.store, run)
    return report.of_run(services.store, run)


def _accepted(services: Services, name: str) -> RunAnswer:
    run = _run(services, name)
    if not any(one.beside for one in run.entries):
        message = f"Run {name} made nothing next to what stands: what it made is in its place already."
        raise Unanswerable(409, "nothing-to-accept", message, "POST /replays with force=true")
    if runs.ending(services.store, run) is None:
        raise Unanswerable(409, "run-not-ended", f"Run {name} has not ended.", f"wait for it: GET /replays/{name}")
    if runs.acceptance(services.store, run) is None:
        runs.accept(services.store, run)
    return report.of_run(services.store, run)


def _run(services: Services, name: str) -> Run:
    if (found := runs.run(services.store, name)) is None:
        if runs.is_damaged(services.store, name):
            message = f"The plan of run {name} cannot be read, so nobody goes on with it."
            raise Unanswerable(404, "damaged-run", message, "plan what is missing now, and run that")
        raise Unanswerable(404, "no-such-run", f"There is no run {name}.", "GET /replays lists them")
    return found


def _letters_listed(services: Services, function: str | None, reason: str | None, limit: int) -> DeadLetterList:
    found = [
        one
        for one in dead_letters.open_letters(services.store)
        if function in (None, one.function) and (reason or "").lower() in one.reason.lower()
    ]
    return report.of_letters(found, limit)


def _letter(services: Services, name: str) -> DeadLetterRecord:
    if (found := dead_letters.read(services.store, name)) is None:
        raise Unanswerable(404, "no-such-letter", f"There is no dead letter {name}.", "GET /dead-letters lists them")
    return found


def _discarded(services: Services, name: str, reason: str) -> DeadLetterAnswer:
    letter = _letter(services, name)
    dead_letters.discard(services.store, letter, reason)
    return report.of_letter(services.store, letter)
