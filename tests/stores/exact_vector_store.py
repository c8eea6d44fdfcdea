"""The index in memory, exact and small: what `functions/vector_store.py` has to equal, row by row."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from layerscope.stores.index_rows import (
    EVERY_ROW,
    CatalogueRow,
    LayerRow,
    Replacement,
    RowFilter,
    RowMatch,
    Vector,
    best,
    check,
    unit_rows,
)


class NumpyStore:
    """Rows in dictionaries, searched by one matrix product; safe in threads."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, LayerRow]] = {}
        self._lines: dict[str, CatalogueRow] = {}
        self._lock = threading.Lock()

    def replace(self, wanted: Sequence[Replacement]) -> list[frozenset[str]]:
        check(wanted)
        with self._lock:
            return [self._replace_one(one) for one in wanted]

    def _replace_one(self, wanted: Replacement) -> frozenset[str]:
        subject, rows, changed = wanted.subject, wanted.rows, set[str]()
        if rows is not None:
            changed = {name for name, group in rows.items() if group}
            for collection, stored in self._rows.items():
                for uid in [uid for uid, row in stored.items() if row.subject == subject]:
                    del stored[uid]
                    changed.add(collection)
            for collection, group in rows.items():
                self._rows.setdefault(collection, {}).update({row.uid: row for row in group})
        if wanted.line is None:
            self._lines.pop(subject, None)
        else:
            self._lines[subject] = wanted.line
        return frozenset(changed)

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, where: RowFilter = EVERY_ROW
    ) -> list[list[RowMatch]]:
        asked = unit_rows(vectors)
        with self._lock:
            stored = list(self._rows.get(collection, {}).values())
        rows = [row for row in stored if row.subject != excluding]
        rows = [row for row in rows if meets(row, where)]
        if not rows:
            return [[] for _ in asked]
        scores = asked @ np.stack([row.vector for row in rows]).T
        return [
            best(
                (
                    RowMatch(row.subject, row.layer, float(s), row.test_accuracy, row.layer_index)
                    for row, s in zip(rows, line, strict=True)
                ),
                k,
            )
            for line in scores
        ]

    def vector(self, collection: str, uid: str) -> Vector | None:
        with self._lock:
            row = self._rows.get(collection, {}).get(uid)
        return None if row is None else row.vector

    def rows(self, collection: str, subjects: Sequence[str]) -> dict[str, list[LayerRow]]:
        found: dict[str, list[LayerRow]] = {}
        with self._lock:
            stored = sorted(self._rows.get(collection, {}).values(), key=lambda row: row.layer_index)
        for row in stored:
            if row.subject in subjects:
                found.setdefault(row.subject, []).append(row)
        return found

    def line(self, subject: str) -> CatalogueRow | None:
        return self.lines([subject]).get(subject)

    def lines(self, subjects: Sequence[str]) -> dict[str, CatalogueRow]:
        with self._lock:
            return {subject: self._lines[subject] for subject in subjects if subject in self._lines}

    def catalogue(self) -> list[CatalogueRow]:
        with self._lock:
            return list(self._lines.values())

    def close(self) -> None:
        """Nothing is held."""


def meets(row: LayerRow, where: RowFilter) -> bool:
    """Tell whether a row meets every condition that is set, each in its own words."""
    accuracy, folder = row.test_accuracy, row.subject.startswith
    return (
        row.subject not in where.without
        and (where.without_model is None or not folder(f"{where.without_model}/"))
        and (where.dataset is None or folder(f"{where.dataset}/"))
        and (where.min_accuracy is None or (accuracy is not None and accuracy >= where.min_accuracy))
        and (where.max_accuracy is None or (accuracy is not None and accuracy <= where.max_accuracy))
        and (where.above_accuracy is None or (accuracy is not None and accuracy > where.above_accuracy))
        and (where.architecture is None or row.architecture == where.architecture)
        and (where.not_architecture is None or row.architecture != where.not_architecture)
        and (where.min_depth is None or row.depth >= where.min_depth)
        and (where.max_depth is None or row.depth <= where.max_depth)
    )
