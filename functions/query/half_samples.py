"""How much a similarity hangs on which probe images there are: the same score from random halves of them. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Rows = NDArray[np.float64]

DRAWS: Final = 100
COVERED: Final = 0.95
FEWEST_IMAGES: Final = 16


@lru_cache(maxsize=8)
def halves(images: int) -> NDArray[np.intp]:
    """Return DRAWS random halves of the images (DRAWS, images // 2): always the same, so that answers are."""
    random = np.random.default_rng(0)
    drawn: NDArray[np.intp] = np.stack([random.permutation(images)[: images // 2] for _ in range(DRAWS)])
    return drawn


def by_half(vector: Vector, images: int) -> Rows:
    """Return for each half the unit vector (DRAWS, pairs of a half) that its Gram packs to, from the vector of all.

    U-centring takes out whatever is a sum of a row's and a column's part, so that of a submatrix does not depend on
    whether the whole was centred before, and the Gram is not needed.
    """
    whole = np.zeros((images, images))
    whole[np.triu_indices(images, 1)] = vector
    whole += whole.T
    chosen = halves(images)
    part = whole[chosen[:, :, None], chosen[:, None, :]]
    n = part.shape[1]
    means = part.sum(axis=1) / (n - 2)
    means -= means.sum(axis=1, keepdims=True) / (2 * (n - 1))
    rows, columns = np.triu_indices(n, 1)
    found: Rows = part[:, rows, columns] - means[:, rows] - means[:, columns]
    return _unit(found)


def without(rows: Rows, confounder: Rows) -> Rows:
    """Return unit rows with the direction of the confounder's taken out of each: the deconfounded vectors."""
    return _unit(rows - (rows * confounder).sum(axis=1, keepdims=True) * confounder)


def interval(first: Rows, second: Rows) -> tuple[float, float] | None:
    """Return between which scores COVERED of the halves lie; None where some half has no pattern to compare.

    The spread over halves without replacement is the standard error of the score itself: the delete-d jackknife with d
    half of the images (Shao & Wu 1989).
    """
    scores = (first * second).sum(axis=1)
    if not np.isfinite(scores).all():
        return None
    low, high = np.quantile(np.clip(scores, -1, 1), [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return round(float(low), 4), round(float(high), 4)


def _unit(rows: Rows) -> Rows:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.full_like(rows, np.nan)
    np.divide(rows, lengths, out=units, where=lengths > 0)
    return units
