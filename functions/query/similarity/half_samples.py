"""How much a similarity hangs on which probe images there are: the same score from random halves of them. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.representation.vectors import NEAREST

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
    return _packed(_parts(whole + whole.T))


def neighbours_by_half(triangle: Vector, images: int) -> Rows:
    """Return for each half the unit vector (DRAWS, pairs of a half) of its graph of nearest images, from a Gram's triangle.

    Of half as many images half as many are near, so that a neighbourhood is as wide as among all. Only the order of
    distances counts, so the Gram (n(n+1)/2,) may be of any scale.
    """
    part = _parts(_gram(triangle, images))
    count = part.shape[1]
    squares = np.diagonal(part, axis1=1, axis2=2)
    distances = squares[:, :, None] + squares[:, None, :] - 2 * part
    distances[:, np.arange(count), np.arange(count)] = np.inf
    near = np.argsort(distances, axis=2, kind="stable")[:, :, : min(NEAREST // 2, (count - 1) // 2)]
    graph = np.zeros_like(part)
    np.put_along_axis(graph, near, 1.0, axis=2)
    return _packed((graph + graph.transpose(0, 2, 1)) / 2)


def classic_by_half(vector: Vector, images: int) -> Rows:
    """Return for each half the unit vector (DRAWS, n²/4) of its centred Gram, from the vector of all by that recipe."""
    off_diagonal = np.where(np.equal(*np.triu_indices(images)), 1.0, np.sqrt(2.0))
    part = _parts(_gram(vector / off_diagonal, images))
    part = part - part.mean(axis=1, keepdims=True)
    part -= part.mean(axis=2, keepdims=True)
    return _unit(part.reshape(len(part), -1))


def without(rows: Rows, confounder: Rows) -> Rows:
    """Return unit rows with the direction of the confounder's taken out of each: the deconfounded vectors."""
    return _unit(rows - (rows * confounder).sum(axis=1, keepdims=True) * confounder)


def interval(scores: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return between which of the scores (DRAWS,) COVERED of the halves lie; None where one has no pattern to compare.

    The spread over halves without replacement is the standard error of the score itself: the delete-d jackknife with d
    half of the images (Shao & Wu 1989).
    """
    if not np.isfinite(scores).all():
        return None
    low, high = np.quantile(np.clip(scores, -1, 1), [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return round(float(low), 4), round(float(high), 4)


def _gram(triangle: NDArray[np.floating], images: int) -> NDArray[np.float64]:
    """Return the Gram (n, n) of an upper triangle with its diagonal."""
    whole = np.zeros((images, images))
    whole[np.triu_indices(images)] = triangle
    return whole + np.triu(whole, 1).T


def _parts(whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the submatrix of each half: (DRAWS, n // 2, n // 2)."""
    chosen = halves(len(whole))
    return whole[chosen[:, :, None], chosen[:, None, :]]


def _packed(part: NDArray[np.float64]) -> Rows:
    """Return the strict upper triangles of submatrices, U-centred and of length one; what is on the diagonal is not read."""
    n = part.shape[1]
    part[:, np.arange(n), np.arange(n)] = 0
    means = part.sum(axis=1) / (n - 2)
    means -= means.sum(axis=1, keepdims=True) / (2 * (n - 1))
    rows, columns = np.triu_indices(n, 1)
    return _unit(part[:, rows, columns] - means[:, rows] - means[:, columns])


def _unit(rows: Rows) -> Rows:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.full_like(rows, np.nan)
    np.divide(rows, lengths, out=units, where=lengths > 0)
    return units
