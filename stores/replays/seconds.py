"""How long what is planned is expected to take: the median of the seconds of past outcomes, of the same model if it has any."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from layerscope.schemas.replays import PlanEntry
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.replays.stock import Stock, outcome

OF_A_MODEL: Final = 3
OF_A_FUNCTION: Final = 9
READ: Final = 400
"""How many outcomes are read for a plan, at most; the newest tell most."""

Group = tuple[str, str]  # of a model, without its version, and a function


class Expected:
    """Expected seconds, from outcomes that are stored."""

    def __init__(self, store: ObjectStore, stock: Stock, planned: Sequence[PlanEntry]) -> None:
        self._store = store
        self._by_function: dict[str, list[float]] = {}
        self._by_model: dict[Group, list[float]] = {}
        stored = _by_group(stock, {one.function for one in planned})
        wanted = dict.fromkeys((_model(one.subject), one.function) for one in planned)
        left = READ
        for function in {one.function for one in planned}:
            newest = sorted(_of(stored, function), key=lambda one: one.modified, reverse=True)[:OF_A_FUNCTION]
            self._by_function[function] = self._read(newest)
            left -= len(newest)
        for group in wanted:
            sample = stored.get(group, [])[-OF_A_MODEL:]
            if left < len(sample):
                break
            self._by_model[group] = self._read(sample)
            left -= len(sample)

    def seconds(self, entry: PlanEntry) -> float | None:
        """Return how long an entry is expected to take; None where nothing like it is stored."""
        if entry.function == "index":
            return 0.0
        of_model = self._by_model.get((_model(entry.subject), entry.function))
        known = of_model or self._by_function.get(entry.function)
        return round(statistics.median(known), 3) if known else None

    def _read(self, outcomes: Iterable[Object]) -> list[float]:
        found = []
        for one in outcomes:
            said = outcome(self._store, one.key) or {}
            seconds = said.get("seconds")
            if isinstance(seconds, int | float) and said.get("state") in ("complete", "admitted"):
                found.append(float(seconds))
        return found


def _by_group(stock: Stock, functions: set[str]) -> Mapping[Group, list[Object]]:
    found: dict[Group, list[Object]] = {}
    for (subject, function), outcomes in stock.stored.items():
        if function in functions:
            found.setdefault((_model(subject), function), []).extend(outcomes)
    for outcomes in found.values():
        outcomes.sort(key=lambda one: one.modified)
    return found


def _of(stored: Mapping[Group, list[Object]], function: str) -> list[Object]:
    return [one for (_, name), outcomes in stored.items() if name == function for one in outcomes]


def _model(subject: str) -> str:
    return subject.rpartition("/")[0]
