"""What came of an entry of a plan: the outcome at its place, what differs from the one before it, or a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.schemas.replays import Change, PlanEntry
from layerscope.stores import product_store, uploads
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.replays.stock import outcome


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome that is there, or a failure with its reason."""

    state: Literal["complete", "refused", "failed"]
    reason: str = ""
    change: Change | None = None


def look(store: ObjectStore, entry: PlanEntry, place: str) -> Result | None:
    """Return what came of an entry at its place; None: nothing yet.

    A failure, or a refusal to be looked at once more, that was there when it was planned is none.

    Raises:
        Unavailable: the object store does not answer.
    """
    if not place or (entry.refusal and _is_as_planned(store, entry, place)):
        return None
    made = outcome(store, place)
    if made is not None:
        refusal = made.get("refusal") or {}
        state: Literal["complete", "refused"] = "refused" if refusal else "complete"
        return Result(state, str(refusal.get("message", "")), _change(store, entry, made))
    failed = store.head(keys.PRODUCTS, keys.failure(place))
    if failed is None or failed.etag == entry.failure:
        return None
    try:
        found = product_store.failure(store, place)
    except ValueError:
        return None
    return Result("failed", found.reason if found else "")


def _is_as_planned(store: ObjectStore, entry: PlanEntry, place: str) -> bool:
    there = store.head(keys.PRODUCTS, place)
    return there is not None and there.etag == entry.refusal


def why_nothing(store: ObjectStore, entry: PlanEntry) -> str:
    """Say why nothing came of an entry that was asked for and is queued no more."""
    try:
        identity = Identity.parse(entry.subject)
    except ValueError:
        return "the object is gone"
    upload = uploads.current(store, identity)
    if upload is None:
        return "the upload is gone"
    if entry.function == "admit" and upload.record_key != entry.outcome:
        return "the upload, or a sidecar of it, was replaced meanwhile"
    return "nothing came of it: its function is down, or what it is made from was replaced meanwhile"


def _change(store: ObjectStore, entry: PlanEntry, made: dict[str, Any]) -> Change | None:
    earlier = outcome(store, entry.earlier) if entry.earlier else None
    if earlier is None:
        return None
    before, now = _figures(earlier), _figures(made)
    figures = {
        name: (before.get(name), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    }
    files = _files_that_differ(earlier, made) if entry.beside else ()
    if not figures and not files:
        return None
    return Change(subject=entry.subject, function=entry.function, figures=figures, files=files)


def _files_that_differ(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    had, has = ({one["name"]: one["sha256"] for one in said.get("files", ())} for said in (before, now))
    return tuple(name for name in sorted(had.keys() | has.keys()) if had.get(name) != has.get(name))


def _figures(said: dict[str, Any]) -> dict[str, Any]:
    return {"state": said.get("state"), **(said.get("headline") or {})}
