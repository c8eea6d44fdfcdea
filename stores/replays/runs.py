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
from layerscope.schemas.replays import Ending, Plan, Progress, Run
from layerscope.stores.object_store import ObjectStore

PLAN: Final = "plan"
PROGRESS: Final = "progress"
CANCEL: Final = "cancel"
END: Final = "end"
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


def progress(store: ObjectStore, begun: Run) -> Progress:
    """Return how far a run has come."""
    found = _read(store, keys.replay(begun.id, PROGRESS), Progress)
    if found is None or len(found.states) != len(begun.entries):
        return Progress(states="." * len(begun.entries), updated=begun.began)
    return found


def write_progress(store: ObjectStore, begun: Run, made: Progress) -> None:
    """Write how far a run has come."""
    store.put(keys.PRODUCTS, keys.replay(begun.id, PROGRESS), made.to_bytes(), media_type=DATA_TYPE)


def cancel(store: ObjectStore, begun: Run) -> None:
    """Write that a run is to ask for nothing more."""
    said = canonical_json({"at": datetime.now(UTC).isoformat()})
    store.put(keys.PRODUCTS, keys.replay(begun.id, CANCEL), said, media_type=DATA_TYPE)


def is_cancelled(store: ObjectStore, begun: Run) -> bool:
    """Tell whether somebody wished a run to end."""
    return store.head(keys.PRODUCTS, keys.replay(begun.id, CANCEL)) is not None


def end(store: ObjectStore, begun: Run, ending: Ending) -> None:
    """Write that a run has ended."""
    store.put(keys.PRODUCTS, keys.replay(begun.id, END), ending.to_bytes(), media_type=DATA_TYPE, only_if_absent=True)


def ending(store: ObjectStore, begun: Run) -> Ending | None:
    """Return how a run ended; None while it has not."""
    return _read(store, keys.replay(begun.id, END), Ending)


def identifiers(store: ObjectStore) -> dict[str, bool]:
    """Return the ids of all runs, the newest first, and whether each has ended."""
    listed = [one.key for one in store.list(keys.PRODUCTS, keys.REPLAYS)]
    parts = [key.removeprefix(keys.REPLAYS).removesuffix(".json").rpartition("/") for key in listed]
    planned = sorted((name for name, _, part in parts if part == PLAN), reverse=True)
    ended = {name for name, _, part in parts if part == END}
    return {name: name in ended for name in planned}


def forget(store: ObjectStore, now: datetime) -> Sequence[str]:
    """Remove the runs that are kept no longer, and return their ids."""
    old = [
        name
        for name, has_ended in identifiers(store).items()
        if has_ended and now - datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) > KEPT
    ]
    for name in old:
        for part in (PROGRESS, CANCEL, PLAN, END):
            store.remove(keys.PRODUCTS, keys.replay(name, part))
    return old


def _read(store: ObjectStore, key: str, kind: type[StoredT]) -> StoredT | None:
    try:
        return kind.from_bytes(store.get(keys.PRODUCTS, key))
    except (NotFound, ValueError):
        return None  # what cannot be read counts as absent
