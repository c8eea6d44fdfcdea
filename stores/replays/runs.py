"""Runs as they lie in the bucket: the plan, which never changes, how far it has come, the wish to end it, and its end.

Whoever may write here starts a run by writing its plan; the function `replay` finds it and does the rest. A process that
is killed leaves nothing behind that the next one needs and does not find.

A part that cannot be read counts as absent, wherever it is looked at: a run has ended if its end can be read. Of a wish,
to cancel or to accept, that it is there says everything.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.replays import LETTERS, RUN_ID, Acceptance, Ending, Plan, PlanEntry, Progress, Run
from layerscope.stores import damage
from layerscope.stores.object_store import Object, ObjectStore

PLAN: Final = "plan"
PROGRESS: Final = "progress"
CANCEL: Final = "cancel"
END: Final = "end"
ACCEPT: Final = "accept"
ACCEPTED: Final = "accepted"
KEPT: Final = timedelta(days=90)

Parts = Mapping[str, Object]

_log = logging.getLogger(__name__)


def begin(store: ObjectStore, plan: Plan, *, rate: float, in_flight: int) -> Run:
    """Write a run down, which starts it."""
    began = datetime.now(UTC)
    identifier = f"{began:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    given = {name: getattr(plan, name) for name in Plan.model_fields}
    run = Run(**given, id=identifier, began=began, rate=rate, in_flight=in_flight)
    store.put(keys.PRODUCTS, keys.replay(run.id, PLAN), run.to_bytes(), media_type=DATA_TYPE, only_if_absent=True)
    return run


def run(store: ObjectStore, identifier: str) -> Run | None:
    """Return a run as it began; None where there is none, or its plan cannot be read."""
    return damage.read_json(
        store, keys.PRODUCTS, keys.replay(identifier, PLAN), Run, lambda found: found.id == identifier
    )


def is_damaged(store: ObjectStore, identifier: str) -> bool:
    """Tell whether there is a plan of this run that cannot be read, so that nobody can go on with it."""
    there = store.head(keys.PRODUCTS, keys.replay(identifier, PLAN))
    return there is not None and run(store, identifier) is None


def under_way(store: ObjectStore, digest: str) -> Run | None:
    """Return the run that carries out the plan with this digest, and goes on; None: there is none."""
    for name, has_ended in identifiers(store).items():
        found = None if has_ended else run(store, name)
        if found is None or found.digest != digest:
            continue
        if ending(store, found) is None and not is_cancelled(store, found):
            return found
    return None


def progress(store: ObjectStore, begun: Run) -> Progress:
    """Return how far a run has come."""
    key, none = keys.replay(begun.id, PROGRESS), Progress(states="." * len(begun.entries), updated=begun.began)

    def belongs(found: Progress) -> bool:
        return len(found.states) == len(begun.entries) and set(found.states) <= LETTERS

    return damage.read_json(store, keys.PRODUCTS, key, Progress, belongs) or none


def write_progress(store: ObjectStore, begun: Run, made: Progress) -> None:
    """Write how far a run has come."""
    store.put(keys.PRODUCTS, keys.replay(begun.id, PROGRESS), made.to_bytes(), media_type=DATA_TYPE)


def place(begun: Run, entry: PlanEntry) -> str:
    """Return the key at which the outcome of an entry comes to lie."""
    return keys.beside(begun.id, entry.outcome) if entry.beside else entry.outcome


def cancel(store: ObjectStore, begun: Run) -> None:
    """Write that a run is to ask for nothing more."""
    _wish(store, begun, CANCEL)


def accept(store: ObjectStore, begun: Run) -> None:
    """Write that what a run made next to what stands is to take its place."""
    _wish(store, begun, ACCEPT)


def _wish(store: ObjectStore, begun: Run, part: str) -> None:
    said = canonical_json({"at": datetime.now(UTC).isoformat()})
    store.put(keys.PRODUCTS, keys.replay(begun.id, part), said, media_type=DATA_TYPE)


def is_cancelled(store: ObjectStore, begun: Run) -> bool:
    """Tell whether somebody wished a run to end."""
    return store.head(keys.PRODUCTS, keys.replay(begun.id, CANCEL)) is not None


def end(store: ObjectStore, begun: Run, ending: Ending) -> None:
    """Write that a run has ended; an end that is there, and can be read, stays."""
    damage.settle(store, keys.replay(begun.id, END), ending, lambda _: True)


def ending(store: ObjectStore, begun: Run) -> Ending | None:
    """Return how a run ended; None while it has not."""
    return damage.read_json(store, keys.PRODUCTS, keys.replay(begun.id, END), Ending)


def accepted(store: ObjectStore, begun: Run, said: Acceptance) -> None:
    """Write that what a run made has taken its place, which ends its stay beside."""
    store.put(keys.PRODUCTS, keys.replay(begun.id, ACCEPTED), said.to_bytes(), media_type=DATA_TYPE)
    forget_beside(store, begun.id)


def acceptance(store: ObjectStore, begun: Run) -> Acceptance | None:
    """Return what came of accepting a run; None: it is not, or not yet."""
    return damage.read_json(store, keys.PRODUCTS, keys.replay(begun.id, ACCEPTED), Acceptance)


def was_accepted(store: ObjectStore, begun: Run) -> bool:
    """Tell whether it was written what came of accepting a run, even if that can no longer be read."""
    return store.head(keys.PRODUCTS, keys.replay(begun.id, ACCEPTED)) is not None


def is_to_be_accepted(store: ObjectStore, begun: Run) -> bool:
    """Tell whether somebody wished that a run be accepted, and it is not yet."""
    return store.head(keys.PRODUCTS, keys.replay(begun.id, ACCEPT)) is not None and acceptance(store, begun) is None


def identifiers(store: ObjectStore) -> dict[str, bool]:
    """Return the ids of all runs, the newest first, and whether each has come to its end, and been accepted if wished."""
    return {name: _has_ended(store, found) for name, found in _by_run(store).items() if PLAN in found}


def _by_run(store: ObjectStore) -> dict[str, Parts]:
    """Return what lies there of each run, by part, the newest run first; what is of no run is reported."""
    found: dict[str, dict[str, Object]] = {}
    for one in store.list(keys.PRODUCTS, keys.REPLAYS):
        name, _, part = one.key.removeprefix(keys.REPLAYS).removesuffix(".json").rpartition("/")
        if _began(name) is None:
            damage.report(keys.PRODUCTS, one.key, "is of no run")
            continue
        found.setdefault(name, {})[part] = one
    return {name: found[name] for name in sorted(found, reverse=True)}


def _began(name: str) -> datetime | None:
    """Return when a run of this id began; None where it is the id of no run."""
    if re.fullmatch(RUN_ID, name) is None:
        return None
    try:
        return datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _has_ended(store: ObjectStore, found: Parts) -> bool:
    """Tell whether a run has come to its end; one of which the store does not say has not."""
    try:
        if END not in found or damage.read_listed(store, keys.PRODUCTS, found[END], Ending) is None:
            return False
        if ACCEPT not in found:
            return True
        return ACCEPTED in found and damage.read_listed(store, keys.PRODUCTS, found[ACCEPTED], Acceptance) is not None
    except Unavailable as error:
        _log.warning("%s cannot be looked at: %s", found[END].key, error)
        return False


def forget_beside(store: ObjectStore, identifier: str) -> None:
    """Remove what a run made next to what stands."""
    for one in store.list(keys.PRODUCTS, keys.beside(identifier, "")):
        store.remove(keys.PRODUCTS, one.key)


def withdraw(store: ObjectStore, entry: PlanEntry) -> None:
    """Remove the refusal that an entry is to have looked at once more, if it is still the one that was planned."""
    there = store.head(keys.PRODUCTS, entry.outcome)
    if there is not None and there.etag == entry.refusal:
        store.remove(keys.PRODUCTS, entry.outcome)


def forget(store: ObjectStore, now: datetime) -> Sequence[str]:
    """Remove the runs that are kept no longer, and return their ids; one that the store does not let go stays."""
    gone = []
    for name, found in _by_run(store).items():
        began = _began(name)
        if began is None or now - began <= KEPT:
            continue
        try:
            if PLAN in found and not _has_ended(store, found) and run(store, name) is not None:
                continue
            forget_beside(store, name)
            for part in (PROGRESS, CANCEL, ACCEPT, PLAN, END, ACCEPTED):  # without a plan nobody takes up what is left
                store.remove(keys.PRODUCTS, keys.replay(name, part))
        except Unavailable as error:
            _log.warning("run %s cannot be forgotten: %s", name, error)
            continue
        gone.append(name)
    return gone
