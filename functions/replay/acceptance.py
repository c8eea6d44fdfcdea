"""Acceptance: what a run made once more takes the place of what stood, and whoever stands on it hears of it.

Whatever interrupts it, the next replica does the rest: what has taken its place is recognised by the event that made it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from layerscope.events.cloudevent import compose
from layerscope.functions.runtime.services import Services, publish
from layerscope.schemas import keys
from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.events import REPLAY_LANE, of_outcome
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.manifests import VOLATILE, Manifest
from layerscope.schemas.replays import LISTED, Acceptance, PlanEntry, Run, Unmade
from layerscope.stores import damage
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.replays import runs

MADE: Final = "crt"
"""Letters of the ledger for what was made: complete, refused, or found by who went on after a process was killed."""

_log = logging.getLogger(__name__)


async def accept(services: Services, run: Run, source: str) -> Acceptance:
    """Put what a run made in the place of what stood, model by model.

    A model of which anything did not come, or is refused now and was not, is left as it was: what stands on that would
    be of two makings.

    Raises:
        Unavailable: the object store or the log does not answer; what was done is done, and can be done again.
    """
    states = (await asyncio.to_thread(runs.progress, services.store, run)).states
    replaced = equal = 0
    left: list[Unmade] = []
    for _, group in groupby(zip(run.entries, states, strict=True), key=lambda one: one[0].subject):
        entries = [(entry, state) for entry, state in group if entry.beside]
        if (unfit := await asyncio.to_thread(_unfit, services.store, run, entries)) is not None:
            left.append(unfit)
            continue
        for entry, _ in entries:  # inputs come before what stands on them
            other, made = await asyncio.to_thread(_replace, services.store, run, entry)
            replaced, equal = replaced + other, equal + (not other)
            if other:
                await publish(
                    services,
                    compose(of_outcome(made), source=source, subject=entry.subject, lane=REPLAY_LANE, replayid=run.id),
                )
    done = Acceptance(at=datetime.now(UTC), replaced=replaced, equal=equal, left=tuple(left[:LISTED]))
    await asyncio.to_thread(runs.accepted, services.store, run, done)
    _log.info("run %s is accepted: %d replaced, %d equal, %d models left", run.id, replaced, equal, len(left))
    return done


def _unfit(store: ObjectStore, run: Run, entries: Sequence[tuple[PlanEntry, str]]) -> Unmade | None:
    """Return why nothing of a model is replaced, which is then left as it was; None: it can be."""
    for entry, state in entries:
        reason = ""
        made = _manifest(store, runs.place(run, entry))
        if state in MADE and made is None and runs.was_accepted(store, run):
            reason = "what became of it is not known: the record of the acceptance was damaged"
        elif state not in MADE or made is None:
            reason = "left as it was: it did not come"
        elif made.refusal is not None and (stood := _manifest(store, entry.outcome)) and stood.refusal is None:
            reason = f"left as it was: it is refused now: {made.refusal.message}"
        if reason:
            return Unmade(subject=entry.subject, function=entry.function, reason=reason)
    return None


def _replace(store: ObjectStore, run: Run, entry: PlanEntry) -> tuple[bool, Manifest]:
    """Put what was made in the place of what stands; return whether that is another outcome, and what was made."""
    made = _manifest(store, runs.place(run, entry))
    if made is None:
        raise Unavailable(f"what run {run.id} made for {entry.subject} is gone: {entry.function}")
    there = store.head(keys.PRODUCTS, entry.outcome)
    stood = _manifest(store, entry.outcome)
    if stood == made:
        return True, made  # by an earlier attempt: nothing else writes this event into that place
    content = made.to_bytes()
    try:
        if there is None:
            store.put(keys.PRODUCTS, entry.outcome, content, media_type=DATA_TYPE, only_if_absent=True)
        else:
            store.put(keys.PRODUCTS, entry.outcome, content, media_type=DATA_TYPE, replaces=there.etag)
    except (NotFound, Changed) as error:
        raise Unavailable(f"{entry.outcome} was changed meanwhile") from error
    return stood is None or _fact(stood) != _fact(made), made


def _manifest(store: ObjectStore, key: str) -> Manifest | None:
    return damage.read_json(store, keys.PRODUCTS, key, Manifest)


def _fact(found: Manifest) -> Manifest:
    """Return what a manifest says but for how it came about."""
    fields = Manifest.model_fields
    return found.model_copy(update={name: fields[name].get_default(call_default_factory=True) for name in VOLATILE})
