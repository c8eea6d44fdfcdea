"""Runs as they lie in the bucket: the plan, which never changes, how far it has come, the wish to end it, and its end.

Whoever may write here starts a run by writing its plan; the function `replay` finds it and does the rest. A process that
is killed leaves nothing behind that the next one needs and does not find.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from layerscope.schemas import keys
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import NotFound
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.manifests import StoredJson
from layerscope.schemas.replays import Acceptance, Ending, Plan, PlanEntry, Progress, Run
from layerscope.stores.object_store import ObjectStore

PLAN: Final = "plan"
PROGRESS: Final = "progress"
CANCEL: Final = "cancel"
END: Final = "end"
ACCEPT: Final = "accept"
ACCEPTED: Final = "accepted"
KEPT: Final = timedelta(days=90)

StoredT = TypeVar("StoredT", bound=StoredJson)


def begin(store: ObjectStore, plan: Plan, *, rate: float, in_flight: int) -> Run:
    """Write a run down, which starts it."""
    began = datetime.now(UTC)
    identifier = f"{began:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    given = {name: getattr(plan, name) for name in Plan.model_fields}
    run = Run(**given, id=identifier, began=began, rate=rate, in_flight=in_flight)
    store.put(keys.PRODUCTS, keys.replay(run.id, PLAN), run.to_bytes(), media_type=DATA_TYPE, only_if_absent=True)
    return run


def run(store: ObjectStore, identifier: str) -> Run | None:
    """Return a run as it began; None where there is none."""
    return _read(store, keys.replay(identifier, PLAN), Run)


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
    found = _read(store, keys.replay(begun.id, PROGRESS), Progress)
    if found is None or len(found.states) != len(begun.entries):
        return Progress(states="." * len(begun.entries), updated=begun.began)
    return found


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
    """Write that a run has ended."""
    store.put(keys.PRODUCTS, keys.replay(begun.id, END), ending.to_bytes(), media_type=DATA_TYPE, only_if_absent=True)


def ending(store: ObjectStore, begun: Run) -> Ending | None:
    """Return how a run ended; None while it has not."""
    return _read(store, keys.replay(begun.id, END), Ending)


def accepted(store: ObjectStore, begun: Run, said: Acceptance) -> None:
    """Write that what a run made has taken its place, which ends its stay beside."""
    store.put(keys.PRODUCTS, keys.replay(begun.id, ACCEPTED), said.to_bytes(), media_type=DATA_TYPE)
    forget_beside(store, begun.id)


def acceptance(store: ObjectStore, begun: Run) -> Acceptance | None:
    """Return what came of accepting a run; None: it is not, or not yet."""
    return _read(store, keys.replay(begun.id, ACCEPTED), Acceptance)


def is_to_be_accepted(store: ObjectStore, begun: Run) -> bool:
    """Tell whether somebody wished that a run be accepted, and it is not yet."""
    return store.head(keys.PRODUCTS, keys.replay(begun.id, ACCEPT)) is not None and acceptance(store, begun) is None


def identifiers(store: ObjectStore) -> dict[str, bool]:
    """Return the ids of all runs, the newest first, and whether each has come to its end, and been accepted if wished."""
    parts: dict[str, set[str]] = {}
    for one in store.list(keys.PRODUCTS, keys.REPLAYS):
        name, _, part = one.key.removeprefix(keys.REPLAYS).removesuffix(".json").rpartition("/")
        parts.setdefault(name, set()).add(part)
    planned = sorted((name for name, found in parts.items() if PLAN in found), reverse=True)
    return {one: END in parts[one] and (ACCEPT not in parts[one] or ACCEPTED in parts[one]) for one in planned}


def forget_beside(store: ObjectStore, identifier: str) -> None:
    """Remove what a run made next to what stands."""
    for one in store.list(keys.PRODUCTS, keys.beside(identifier, "")):
        store.remove(keys.PRODUCTS, one.key)


def forget(store: ObjectStore, now: datetime) -> Sequence[str]:
    """Remove the runs that are kept no longer, and return their ids."""
    old = [
        name
        for name, has_ended in identifiers(store).items()
        if has_ended and now - datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) > KEPT
    ]
    for name in old:
        forget_beside(store, name)
        for part in (PROGRESS, CANCEL, ACCEPT, PLAN, END, ACCEPTED):
            store.remove(keys.PRODUCTS, keys.replay(name, part))
    return old


def _read(store: ObjectStore, key: str, kind: type[StoredT]) -> StoredT | None:
    try:
        return kind.from_bytes(store.get(keys.PRODUCTS, key))
    except (NotFound, ValueError):
        return None  # what cannot be read counts as absent
