"""How a system fares as a whole: what waits, what repair found, what failed. Blocking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from layerscope.events.log import GroupState, LogUnavailable
from layerscope.events.topics import Tenant
from layerscope.functions.query.why_sources import repair_health
from layerscope.functions.runtime.backlog import groups
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.identity import subject_of_key
from layerscope.schemas.products import declared_products
from layerscope.schemas.status import FunctionLine, OldestUnserved, RepairLine, StatusAnswer
from layerscope.stores import dead_letters
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.replays import runs

STATES: Final = ("complete", "computing", "refused", "failed")
"""The states of models, the good one first."""
INDEX: Final = "index"
SOURCES: Final = ("announce", "replay")
"""Functions that are fed by a KafkaSource, each from a topic of its own."""


def status(services: Services) -> StatusAnswer:
    """Answer; what does not answer, but for the bucket, is left out and noted.

    Raises:
        Unavailable: the object store does not answer.
    """
    notes: list[str] = []
    health = repair_health(services.store)
    rows: Sequence[CatalogueRow] = ()
    try:
        rows = services.vectors.catalogue()
    except Unavailable as error:
        notes.append(f"The index does not answer ({error}), so models are not counted.")
    states: Mapping[str, GroupState | None] = {}
    try:
        states = services.log.groups(_topics(services.tenant))
    except LogUnavailable as error:
        notes.append(f"The event log does not answer ({error}), so nobody knows what waits.")
    counted = Counter(row.state for row in rows)
    lines = tuple(_lines(states, services.tenant))
    runs = any(line.has_readers is not False for line in lines)  # a directory, say, is at rest between commands
    if runs and (stopped := stands_still(health, datetime.now(UTC))) is not None:
        notes.append(stopped)
    if behind := next((line.live for line in lines if line.function == INDEX and line.live), None):
        notes.append(f"Models are counted by the index, which has {behind:,} event{'s'[: behind != 1]} yet to read.")
    return StatusAnswer(
        models={state: counted[state] for state in STATES if counted[state]},
        oldest_unserved=oldest_unserved(rows, health, datetime.now(UTC)),
        repair=_repair(health),
        functions=lines,
        dead_letters=sum(1 for _ in dead_letters.open_letters(services.store)),
        replays=_replays(services.store),
        notes=tuple(notes),
    )


def oldest_unserved(rows: Iterable[CatalogueRow], health: RepairHealth | None, now: datetime) -> OldestUnserved | None:
    """Return the upload that has waited longest: of those the catalogue has as computing, and the one repair found."""
    found = [(datetime.fromisoformat(row.uploaded), row.subject) for row in rows if row.state == "computing"]
    if health is not None and health.oldest_unserved is not None and health.oldest_key is not None:
        found.append((health.oldest_unserved, subject_of_key(health.oldest_key)))
    if not found:
        return None
    uploaded, subject = min(found)
    return OldestUnserved(subject=subject, uploaded=uploaded, seconds=round((now - uploaded).total_seconds(), 1))


def _topics(tenant: Tenant) -> dict[str, str]:
    """Return what each consumer group of the system reads."""
    triggers = {group: tenant.events for name in _functions() for group, _ in groups(name, tenant)}
    sources = {tenant.announce_group: tenant.s3_raw, tenant.dead_letters_group: tenant.dead_letters}
    return {**sources, **triggers}


def _functions() -> tuple[str, ...]:
    return ("admit", *(one.declared.name for one in declared_products()), INDEX)


def _lines(states: Mapping[str, GroupState | None], tenant: Tenant) -> Iterable[FunctionLine]:
    for name, group in zip(SOURCES, (tenant.announce_group, tenant.dead_letters_group), strict=True):
        yield _line(name, [states.get(group)], asked=bool(states))
    for name in _functions():
        yield _line(name, [states.get(group) for group, _ in groups(name, tenant)], asked=bool(states))


def _line(name: str, states: Sequence[GroupState | None], *, asked: bool) -> FunctionLine:
    lags = [None if one is None else one.lag for one in states]
    has_readers = all(one is not None and one.has_members for one in states) if asked else None
    return FunctionLine(function=name, live=lags[0], replay=lags[1] if len(lags) > 1 else None, has_readers=has_readers)


def stands_still(health: RepairHealth | None, now: datetime) -> str | None:
    """Say that repair has stopped, where no round has ended by the time that the last one, or the present one, was due."""
    if health is None or health.due is None or now <= health.due:
        return None
    last = f"{health.last_good:%Y-%m-%d %H:%M:%S} UTC" if health.last_good else "none so far"
    return (
        f"Repair has stopped: a round was to end by {health.due:%Y-%m-%d %H:%M:%S} UTC, and none has (last good one: {last}). "
        "It hangs, or replay and its timer do not run: restart replay."
    )


def _repair(health: RepairHealth | None) -> RepairLine | None:
    if health is None:
        return None
    return RepairLine(**health.model_dump(include={"last_good", "failed_rounds", "reason", "missing"}))


def _replays(store: ObjectStore) -> tuple[str, ...]:
    """Return the runs that have not ended."""
    return tuple(sorted(name for name, has_ended in runs.identifiers(store).items() if not has_ended))
