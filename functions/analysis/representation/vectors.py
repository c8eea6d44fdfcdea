"""Vectors whose inner products are similarities, and the health of the Gram that each was made from.

With U the U-centred Gram (Székely & Rizzo 2014), the inner product of two U is n (n - 3) times the unbiased HSIC_1 of
Song et al. 2012. So the strict upper triangle of U, scaled to unit length, is one fixed vector for each layer, and the
inner product of two is their debiased linear CKA (Kornblith et al. 2019). Over random pairings of the images that has
mean 0 and standard deviation sqrt(2 / (n (n - 3))), whatever the two layers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

NEAREST: Final = 10
FEWEST_IMAGES: Final = 4  # n - 3 is what a comparison divides by
_PATTERNLESS: Final = 1e-6
_CONSTANT: Final = 1e-12
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Gram:
    """The centred Gram (n, n) of n responses, and the sum of their squares before they were centred."""

    centred: Matrix
    energy: float

    @property
    def finite(self) -> bool:
        """Tell whether all is finite in float32, as it will be stored."""
        return bool(np.isfinite(self.centred).all() and np.abs(self.centred).max() <= _LARGEST)

    @property
    def constant(self) -> bool:
        """Tell whether the responses differ by no more than float32 rounds: about a millionth of their size."""
        return float(np.trace(self.centred)) <= _CONSTANT * self.energy

    @property
    def effective_dimension(self) -> float:
        """Return the participation ratio of the spectrum, 1..n-1."""
        return float(1 / np.square(self.centred / np.trace(self.centred)).sum())

    @property
    def max_leverage(self) -> float:
        """Return the largest share of the trace that one image holds."""
        return float(np.diag(self.centred).max() / np.trace(self.centred))


def packed(gram: Matrix) -> Vector | None:
    """Return the unit vector (n(n-1)/2,) of a Gram (n, n), centred or not, row by row of its strict upper triangle.

    None where there is no pattern to compare: all images alike, all equally far apart, or one apart from all the rest.
    """
    n = len(gram)
    off_diagonal = gram - np.diag(np.diag(gram))
    means = off_diagonal.sum(axis=0) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    vector: Vector = (off_diagonal - means[:, None] - means).ravel()[_triangle(n, 1)]
    length = float(np.linalg.norm(vector))
    # Rounding of float32 products leaves about 1e-8 of the trace; responses to real images are above 1e-3.
    return vector / length if length > _PATTERNLESS * np.trace(gram) else None


def neighbours(gram: Matrix) -> Vector | None:
    """Return the unit vector (n(n-1)/2,) of the graph of each image's nearest images, from a Gram (n, n).

    Each of two images that has the other among its NEAREST counts one half; nearness is Euclidean, and of equals the
    first counts. The graph is centred as `packed` does, so the inner product of two vectors is the overlap of mutual
    nearest neighbours (Huh et al. 2024, arXiv 2405.07987) less what chance gives, over what it can be at most. It depends
    on the order of distances only, whatever an outlier's size is. None where there is no pattern.
    """
    n, squares = len(gram), np.diag(gram)
    distances = squares[:, None] + squares - 2 * gram
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(NEAREST, (n - 1) // 2)]
    graph = np.eye(n)
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    return packed((graph + graph.T) / 2)


def without(vector: Vector, confounder: Vector) -> Vector:
    """Return a unit vector with another one's direction taken out, again of unit length.

    The inner product of two such vectors is their partial correlation given the confounder: the U-centred form of the
    deconfounded CKA of Cui et al. 2022.
    """
    rest = vector - (vector @ confounder) * confounder
    unit: Vector = rest / np.linalg.norm(rest)
    return unit


def label_gram(labels: NDArray[np.int64]) -> Matrix:
    """Return the Gram (n, n) of one-hot labels (n,): 1 where two images are of one class."""
    alike: Matrix = np.equal.outer(labels, labels).astype(np.float64)
    return alike


def upper_triangle(gram: Matrix) -> NDArray[np.float32]:
    """Return the upper triangle with its diagonal, row by row, as it is stored: float32 (n(n+1)/2,)."""
    triangle: NDArray[np.float32] = gram.ravel()[_triangle(len(gram), 0)].astype(np.float32)
    return triangle


@lru_cache
def _triangle(n: int, first: int) -> NDArray[np.intp]:
    """Return where the upper triangle lies in a flattened matrix (n, n), from its `first` diagonal on."""
    places: NDArray[np.intp] = np.flatnonzero(np.triu(np.ones((n, n), np.bool_), first))
    return places


def classic(triangles: NDArray[np.floating], images: int) -> Vector:
    """Return the unit vectors (L, n(n+1)/2) of stored upper triangles by the older system's recipe; zeros stay zeros.

    That recipe is the centred Gram, all of it with its diagonal, over its Frobenius norm; the inner product of two is the
    biased linear CKA of Kornblith et al. 2019. What stands off the diagonal counts twice, so it is taken times √2.
    """
    rows, columns = np.triu_indices(images)
    weighted: Vector = triangles.astype(np.float64) * np.where(rows == columns, 1.0, np.sqrt(2.0))
    lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
    units: Vector = np.zeros_like(weighted)
    np.divide(weighted, lengths, out=units, where=lengths > 0)
    return units
