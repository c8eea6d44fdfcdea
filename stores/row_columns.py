"""What is known of the rows of a collection besides their vectors, by slot: which of them meet a filter. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np
import numpy.typing as npt

from layerscope.stores.index_rows import LayerRow, RowFilter, RowMatch

Mask = npt.NDArray[np.bool_]
START: Final = 1_024


class RowColumns:
    """The fields of rows; `slots` finds a row by its uid, and a slot that is free is used again."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.uids: list[str] = []
        self._rows: list[LayerRow | None] = []
        self._free: list[int] = []
        self._of: dict[str, set[int]] = defaultdict(set)
        self._accuracy, self._depth = np.empty(START), np.empty(START)
        self._alive = np.zeros(START, bool)

    @property
    def alive(self) -> Mask:
        """Tell of each slot whether a row is there (n,)."""
        return self._alive[: len(self._rows)]

    def of(self, subject: str) -> list[int]:
        """Return the slots of a subject's rows."""
        return sorted(self._of.get(subject, ()))

    def subjects(self) -> list[str]:
        """Return whose rows there are."""
        return list(self._of)

    def add(self, row: LayerRow) -> int:
        """Give a row a slot."""
        if not self._free:
            self._free.append(len(self._rows))
            self._rows.append(None)
            self.uids.append("")
            self._reach(len(self._rows))
        slot = self._free.pop()
        self.slots[row.uid], self.uids[slot] = slot, row.uid
        self._of[row.subject].add(slot)
        self._alive[slot] = True
        self.write(slot, row)
        return slot

    def write(self, slot: int, row: LayerRow) -> None:
        """Note what is known of the row in a slot; its vector is not."""
        self._rows[slot] = LayerRow(
            row.uid, row.subject, row.layer, row.layer_index, row.test_accuracy, NOWHERE, row.depth, row.architecture
        )
        self._accuracy[slot] = np.nan if row.test_accuracy is None else row.test_accuracy
        self._depth[slot] = row.depth

    def remove(self, slot: int) -> None:
        """Free a slot."""
        row = self._rows[slot]
        assert row is not None
        self._rows[slot], self._alive[slot] = None, False
        del self.slots[row.uid]
        self._of[row.subject].discard(slot)
        if not self._of[row.subject]:
            del self._of[row.subject]
        self._free.append(slot)

    def match(self, slot: int, score: float) -> RowMatch:
        """Return the row of a slot as it is found."""
        row = self._rows[slot]
        assert row is not None
        return RowMatch(row.subject, row.layer, score, row.test_accuracy, row.layer_index)

    def meets(self, slot: int, excluding: str, where: RowFilter) -> bool:
        """Tell whether the row of a slot is of another subject than `excluding`, and meets every condition."""
        row = self._rows[slot]
        return (
            row is not None
            and _subject_meets(row.subject, excluding, where)
            and _built_meets(row.architecture, where)
            and bool(_numbers_meet(self._accuracy[slot : slot + 1], self._depth[slot : slot + 1], where)[0])
        )

    def meeting(self, excluding: str, where: RowFilter) -> Mask:
        """Tell the same of every slot (n,)."""
        count = len(self._rows)
        found = self.alive & _numbers_meet(self._accuracy[:count], self._depth[:count], where)
        for subject, slots in self._of.items():
            if not _subject_meets(subject, excluding, where):
                found[list(slots)] = False
        if where.architecture is not None or where.not_architecture is not None:
            for slot in np.flatnonzero(found).tolist():
                row = self._rows[slot]
                found[slot] = row is not None and _built_meets(row.architecture, where)
        return found

    def _reach(self, count: int) -> None:
        if count > len(self._alive):
            more = len(self._alive)
            self._accuracy = np.append(self._accuracy, np.empty(more))
            self._depth = np.append(self._depth, np.empty(more))
            self._alive = np.append(self._alive, np.zeros(more, bool))


NOWHERE: Final = np.empty(0, np.float32)


def _subject_meets(subject: str, excluding: str, where: RowFilter) -> bool:
    return (
        subject != excluding
        and subject not in where.without
        and (where.without_model is None or not subject.startswith(f"{where.without_model}/"))
        and (where.dataset is None or subject.startswith(f"{where.dataset}/"))
    )


def _built_meets(architecture: str, where: RowFilter) -> bool:
    return (where.architecture is None or architecture == where.architecture) and (
        where.not_architecture is None or architecture != where.not_architecture
    )


def _numbers_meet(accuracy: npt.NDArray[np.float64], depth: npt.NDArray[np.float64], where: RowFilter) -> Mask:
    """Tell which numbers are within all bounds that are set; an accuracy that is not known, NaN, is within none."""
    found: Mask = np.ones(np.shape(depth), bool)
    if where.min_accuracy is not None:
        found = found & (accuracy >= where.min_accuracy)
    if where.max_accuracy is not None:
        found = found & (accuracy <= where.max_accuracy)
    if where.above_accuracy is not None:
        found = found & (accuracy > where.above_accuracy)
    if where.min_depth is not None:
        found = found & (depth >= where.min_depth)
    if where.max_depth is not None:
        found = found & (depth <= where.max_depth)
    return found
