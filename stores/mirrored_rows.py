"""The rows of one collection in memory: searched by one matrix product, with the nearest of a row kept once known.

A kept list has every row whose score is at least its floor. So a new row is compared with all rows at once and entered
where it reaches the floor, a removed one leaves a hole, and a list answers for itself whenever enough of it is wanted.
One with too many holes is forgotten, and made again when it is asked for. Scores are float64 products of the stored
float32 vectors to six digits: the same whichever way a row came into a list. Pure; `kept_neighbours.py` fills it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from layerscope.stores.index_rows import SCORE_DIGITS, LayerRow, RowFilter, RowMatch, Vector, best
from layerscope.stores.row_columns import RowColumns

KEPT: Final = 128
"""Rows of a list when it is made."""
MOST_KEPT: Final = 192
"""Rows of a list at most: at more its floor is raised, so that `KEPT` are left."""
BLOCK: Final = 1_024
MARGIN: Final = 2e-6
"""By how much a float32 product may be below what counts, before it is worked out in float64."""
PAIRS: Final = 512
NONE: Final = -1

Slots = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class MirroredRows:
    """The rows of a collection by slot, a number; one that is free is used again. Not safe in threads."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[Vector] = []
        self._columns = RowColumns()
        self._at: dict[bytes, set[int]] = defaultdict(set)
        self._near = np.empty((0, MOST_KEPT), np.int32)
        self._scores = np.empty((0, MOST_KEPT), np.float32)
        self._floor = np.empty(0)  # NaN: no list is kept; -inf: it has every row
        self.searched = 0
        """Questions that took a product of all rows."""

    @property
    def nbytes(self) -> int:
        """Return about how much memory this takes."""
        return sum(block.nbytes for block in self._blocks) + self._near.nbytes + self._scores.nbytes

    def vector(self, uid: str) -> Vector | None:
        """Return the vector of a row; None where there is no such row."""
        slot = self._columns.slots.get(uid)
        return None if slot is None else self._vectors(np.array([slot]))[0]

    def put(self, subject: str, rows: Sequence[LayerRow], *, listed: bool = True) -> None:
        """Make the rows of a subject exactly these; with `listed` their nearest rows are kept at once."""
        known = {self._columns.uids[slot]: slot for slot in self._columns.of(subject)}
        same = {
            row.uid: known[row.uid]
            for row in rows
            if row.uid in known and np.array_equal(self._vectors(np.array([known[row.uid]]))[0], row.vector)
        }
        self._remove([slot for uid, slot in known.items() if uid not in same])
        for row in rows:
            if row.uid in same:
                self._columns.write(same[row.uid], row)
        new = [row for row in rows if row.uid not in same]
        if new:
            self._add(new, listed)

    def search(self, vectors: Vector, *, k: int, excluding: str, where: RowFilter) -> list[list[RowMatch]]:
        """Return for each of `vectors` (q, d) the `k` nearest rows of other subjects than `excluding`, best first."""
        found = [self._looked_up(vector, k, excluding, where) for vector in vectors]
        lacking = [at for at, one in enumerate(found) if one is None]
        if lacking:
            allowed = self._columns.meeting(excluding, where)
            for at, row in zip(lacking, self._products(vectors[lacking]), strict=True):
                found[at] = self._best(vectors[at], row, allowed, k)
            self.searched += len(lacking)
        return [one or [] for one in found]

    def _looked_up(self, vector: Vector, k: int, excluding: str, where: RowFilter) -> list[RowMatch] | None:
        """Return what a kept list answers; None where it has too few that count, or is of no row."""
        slot = next(iter(self._at.get(_digest(vector), ())), None)
        if slot is None or k > MOST_KEPT:
            return None
        if np.isnan(self._floor[slot]):
            self._list(slot, self._products(vector[None])[0])
            self.searched += 1
        entries = np.flatnonzero(self._near[slot] != NONE)
        entries = entries[np.argsort(-self._scores[slot, entries])]
        matches: list[RowMatch] = []
        for one, near in zip(self._near[slot, entries].tolist(), self._scores[slot, entries].tolist(), strict=True):
            score = round(near, SCORE_DIGITS)
            if len(matches) >= k and score < matches[k - 1].score:
                break
            if self._columns.meets(one, excluding, where):
                matches.append(self._columns.match(one, score))
        return best(matches, k) if len(matches) >= k or self._floor[slot] == -math.inf else None

    def _best(self, vector: Vector, row: Vector, allowed: npt.NDArray[np.bool_], k: int) -> list[RowMatch]:
        (slots,) = np.nonzero(allowed)
        near = row[slots]
        if len(slots) > k:
            slots = slots[near >= np.partition(near, len(near) - k)[len(near) - k] - MARGIN]
        scores = self._exact(np.repeat(vector[None], len(slots), axis=0), slots)
        return best((self._columns.match(int(s), float(x)) for s, x in zip(slots, scores, strict=True)), k)

    def _add(self, rows: Sequence[LayerRow], listed: bool) -> None:
        slots = np.array([self._columns.add(row) for row in rows], np.int64)
        self._grow()
        for slot, row in zip(slots.tolist(), rows, strict=True):
            self._blocks[slot // BLOCK][slot % BLOCK] = row.vector
            self._at[_digest(row.vector)].add(slot)
        if not listed and np.all(np.isnan(self._floor)):
            return
        products = self._products(self._vectors(slots))
        floor = self._floor[: products.shape[1]].copy()
        floor[slots] = np.nan  # they are entered into lists of others
        new, old = np.nonzero(products >= floor - MARGIN)
        scores = self._exact(self._vectors(slots[new]), old)
        for at, to, score in zip(slots[new].tolist(), old.tolist(), scores.tolist(), strict=True):
            if score >= self._floor[to]:
                self._enter(to, at, score)
        if listed:
            for slot, row in zip(slots.tolist(), products, strict=True):
                self._list(slot, row)

    def _remove(self, slots: Sequence[int]) -> None:
        if not slots:
            return
        for slot in slots:
            digest = _digest(self._vectors(np.array([slot]))[0])
            self._at[digest].discard(slot)
            if not self._at[digest]:
                del self._at[digest]
            self._columns.remove(slot)
        gone = np.zeros(len(self._floor) + 1, bool)  # the last stands for NONE
        gone[list(slots)] = True
        self._near[gone[self._near]] = NONE
        self._floor[list(slots)] = np.nan
        few = np.count_nonzero(self._near != NONE, axis=1) < KEPT // 2
        self._floor[few & (self._floor > -math.inf)] = np.nan
        self._near[np.isnan(self._floor)] = NONE

    def _list(self, slot: int, row: Vector) -> None:
        """Make the list of a row from its products (n,) with all."""
        (slots,) = np.nonzero(self._columns.alive)
        near, floor = row[slots], -math.inf
        if len(slots) > KEPT:
            slots = slots[near >= np.partition(near, len(near) - KEPT)[len(near) - KEPT] - MARGIN]
        scores = self._exact(np.repeat(self._vectors(np.array([slot])), len(slots), axis=0), slots)
        if np.count_nonzero(self._columns.alive) > KEPT:
            floor = np.sort(scores)[-KEPT]
        self._write(slot, slots, scores, floor)

    def _enter(self, slot: int, new: int, score: float) -> None:
        (free,) = np.nonzero(self._near[slot] == NONE)
        if len(free):
            self._near[slot, free[0]], self._scores[slot, free[0]] = new, score
            return
        slots = np.append(self._near[slot].astype(np.int64), new)
        scores = np.append(np.round(self._scores[slot].astype(np.float64), SCORE_DIGITS), score)
        self._write(slot, slots, scores, float(np.sort(scores)[-KEPT]))

    def _write(self, slot: int, slots: Slots, scores: Scores, floor: float) -> None:
        """Keep of a list what reaches the floor, which rises where that is too many: all of equals or none are kept."""
        reach = scores >= floor
        if np.count_nonzero(reach) > MOST_KEPT:
            floor = (
                round(floor + 10**-SCORE_DIGITS, SCORE_DIGITS) if floor > -math.inf else float(np.sort(scores)[-KEPT])
            )
            return self._write(slot, slots, scores, floor)
        self._near[slot], self._scores[slot], self._floor[slot] = NONE, 0, floor
        self._near[slot, : np.count_nonzero(reach)] = slots[reach]
        self._scores[slot, : np.count_nonzero(reach)] = scores[reach]
        return None

    def _grow(self) -> None:
        while len(self._blocks) * BLOCK < len(self._columns.alive):
            self._blocks.append(np.zeros((BLOCK, self._dimension), np.float32))
        more = len(self._columns.alive) - len(self._floor)
        if more > 0:
            more = max(more, len(self._floor) // 4)
            self._near = np.vstack([self._near, np.full((more, MOST_KEPT), NONE, np.int32)])
            self._scores = np.vstack([self._scores, np.zeros((more, MOST_KEPT), np.float32)])
            self._floor = np.append(self._floor, np.full(more, np.nan))

    def _vectors(self, slots: Slots) -> Vector:
        out = np.empty((len(slots), self._dimension), np.float32)
        for to, slot in enumerate(slots.tolist()):
            out[to] = self._blocks[slot // BLOCK][slot % BLOCK]
        return out

    def _products(self, vectors: Vector) -> Vector:
        """Return the products (q, n) of vectors with the rows of all slots, also of free ones."""
        out = np.empty((len(vectors), len(self._blocks) * BLOCK), np.float32)
        for at, block in enumerate(self._blocks):
            np.matmul(vectors, block.T, out=out[:, at * BLOCK : (at + 1) * BLOCK])
        return out[:, : len(self._columns.alive)]

    def _exact(self, vectors: Vector, slots: Slots) -> Scores:
        """Return the scores of pairs: `vectors` (p, d), each with the row of its slot."""
        parts = [
            np.einsum("pd,pd->p", vectors[part].astype(np.float64), self._vectors(slots[part]).astype(np.float64))
            for part in _parts(len(slots))
        ]
        return np.round(np.clip(np.concatenate(parts), -1, 1), SCORE_DIGITS) + 0.0 if parts else np.empty(0)


def _parts(count: int) -> Iterator[slice]:
    return (slice(at, at + PAIRS) for at in range(0, count, PAIRS))


def _digest(vector: Vector) -> bytes:
    return blake2b(np.ascontiguousarray(vector).tobytes(), digest_size=16).digest()
