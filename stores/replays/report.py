"""What there is to say of plans, runs and dead letters: counts, from what is stored of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerscope.schemas.operations import (
    DeadLetterAnswer,
    DeadLetterGroup,
    DeadLetterLine,
    DeadLetterList,
    PlanAnswer,
    RunAnswer,
)
from layerscope.schemas.products import declared_products
from layerscope.schemas.replays import LISTED, DeadLetterRecord, Plan, Run
from layerscope.stores import dead_letters
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.replays import runs


def of_plan(plan: Plan) -> PlanAnswer:
    """Return a plan with its counts and its digest."""
    follow = sum(not one.is_asked_for for one in plan.entries)
    return PlanAnswer(
        digest=plan.digest,
        selection=plan.selection,
        models=len({one.subject for one in plan.entries}),
        asked=len(plan.entries) - follow,
        follow=follow,
        there=plan.there,
        seconds=plan.seconds,
        unknown=plan.unknown,
        entries=plan.entries,
    )


def of_run(store: ObjectStore, run: Run) -> RunAnswer:
    """Return how far a run has come."""
    progress, ending = runs.progress(store, run), runs.ending(store, run)
    beside = sum(one.beside for one in run.entries)
    accepted = runs.acceptance(store, run) if beside else None
    count = Counter(progress.states)
    own = zip(progress.states, run.entries, strict=True)
    return RunAnswer(
        id=run.id,
        state=ending.state if ending else "running",
        began=run.began,
        ended=ending.ended if ending else None,
        selection=run.selection,
        rate=run.rate,
        in_flight=run.in_flight,
        waits_for="" if ending else progress.waits_for,
        planned=len(run.entries),
        asked=sum(state not in ".t" and one.is_asked_for for state, one in own),
        under_way=count["q"],
        computed=count["c"],
        refused=count["r"],
        there=count["t"],
        failed=count["f"],
        none=count["n"],
        seconds=run.seconds,
        changed=progress.changed,
        changes=progress.changes,
        unmade=progress.unmade,
        beside=beside,
        accepted=accepted,
    )


def of_letters(letters: Sequence[DeadLetterRecord], limit: int = LISTED) -> DeadLetterList:
    """Return the newest of these dead letters, and all of them by function and reason, the most frequent first."""
    newest = sorted(letters, key=lambda one: (one.last, one.id), reverse=True)
    fields = set(DeadLetterLine.model_fields)
    lines = tuple(DeadLetterLine.model_validate(one.model_dump(include=fields)) for one in newest[:limit])
    grouped: dict[tuple[str, str], list[DeadLetterRecord]] = {}
    for one in newest:
        grouped.setdefault((one.function, one.reason), []).append(one)
    groups = [
        DeadLetterGroup(function=name, reason=reason, letters=len(found), times=sum(one.times for one in found))
        for (name, reason), found in grouped.items()
    ]
    groups.sort(key=lambda one: (-one.letters, one.function, one.reason))
    return DeadLetterList(letters=lines, total=len(newest), groups=tuple(groups))


def of_letter(store: ObjectStore, letter: DeadLetterRecord) -> DeadLetterAnswer:
    """Return a dead letter with what may be done about it."""
    known = {"admit", *(one.declared.name for one in declared_products())}
    redrive = f"layerscope dead-letters redrive {letter.id}"
    if letter.function not in known:
        redrive = "cannot be asked for again as such: what it would have led to is asked for when it is missing"
    return DeadLetterAnswer(letter=letter, discarded=dead_letters.discarded(store, letter.id), redrive=redrive)
