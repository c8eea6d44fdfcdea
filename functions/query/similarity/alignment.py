"""The layers of two models matched in order: a path of best matches through the matrix of their similarities. Pure.

Global alignment by dynamic programming (Needleman and Wunsch 1970) without a cost for what is left out: of all ways to
pair layers of one model with layers of another, each at most once and none crossing another, the one whose
similarities add up to the most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

CHANCE: Final = 4.0
"""Standard deviations of a similarity under random pairing of the images up to which two layers are not paired."""


@dataclass(frozen=True, slots=True)
class Match:
    """A layer of the one model, the layer of the other that stands for it, by their numbers, and their similarity."""

    a: int
    b: int
    score: float


def floor(images: int) -> float:
    """Return the similarity up to which a pair is no more alike than chance, over a probe set of n > 3 images."""
    return CHANCE * math.sqrt(2 / (images * (images - 3)))


def totals(scores: Scores, least: float) -> Scores:
    """Return for each matrix of a stack (M, n, m) the largest sum of similarities that pairs in order reach: (M,).

    Similarities up to `least`, and NaN where two layers cannot be compared, add nothing.
    """
    return _table(scores, least)[-1][:, -1]


def path(scores: Scores, least: float) -> list[Match]:
    """Return the pairs of layers, in order, that reach the largest sum in a matrix (n, m); of equals the earliest."""
    rows = [row[0] for row in _table(scores[None], least)]
    at, to = scores.shape
    found = []
    while at and to:
        if rows[at][to] == rows[at - 1][to]:
            at -= 1
        elif rows[at][to] == rows[at][to - 1]:
            to -= 1
        else:
            at, to = at - 1, to - 1
            found.append(Match(at, to, float(scores[at, to])))
    return found[::-1]


def likeness(total: float, layers_a: int, layers_b: int) -> float:
    """Return the score of two models, 0..1: twice the sum over the number of layers of both (as of Dice 1945).

    It is 1 where every layer of either has its like in the other, in the same order, and 0 where none has.
    """
    return min(1.0, 2 * total / (layers_a + layers_b)) if layers_a and layers_b else 0.0


def _table(scores: Scores, least: float) -> list[Scores]:
    """Return the largest sum (M, m + 1) over the first i layers of the one and j of the other, for i = 0..n."""
    gains = np.where(scores > least, scores, 0.0)  # NaN is not above
    stack, layers, others = gains.shape
    rows = [np.zeros((stack, others + 1))]
    for at in range(layers):
        above = rows[-1]
        row = above.copy()
        np.maximum(row[:, 1:], above[:, :-1] + gains[:, at], out=row[:, 1:])
        rows.append(np.maximum.accumulate(row, axis=1))
    return rows
