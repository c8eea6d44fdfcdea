"""The untrained networks of a model's own architecture, and the rank of a similarity among theirs. Pure.

Networks of one architecture are alike before any training, more than networks of others are, so a model is told from
untrained ones only beside those of its own. Each of R such networks and the model itself, were it not trained either,
would be the first of them all with one chance in R + 1, whatever it is ranked by: a permutation test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query.similarity.reference_population import Layers
from layerscope.schemas.products.layer_vectors import Metric

FEWEST: Final = 19
"""Of fewer, exceeding all would not be beyond 0.95."""


@dataclass(frozen=True, slots=True)
class Networks:
    """R untrained networks of one architecture, of each the same K layers; `places` (K,) says which ones of the model's."""

    places: NDArray[np.int64]
    among: tuple[Layers, ...]

    @property
    def number(self) -> int:
        """Return R."""
        return sum(len(one.layers) // len(self.places) for one in self.among)

    def scores(self, metric: Metric, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return how like each of their layers is to each of these rows (n, d): (R, n, K); NaN for one without a vector."""
        found = [np.zeros((0, len(rows), len(self.places)))]
        for one in self.among:
            vectors = one.vectors(metric).astype(np.float64)
            known = np.where(vectors.any(axis=1, keepdims=True), vectors @ rows.T.astype(np.float64), np.nan)
            found.append(known.reshape(-1, len(self.places), len(rows)).transpose(0, 2, 1))
        return np.concatenate(found)


def of_architecture(untrained: Sequence[Layers], model: Layers) -> Networks:
    """Return those of the untrained networks that have the layers of a model, by types and shapes in order."""
    among = [one for one in untrained if _places(one, model) is not None]
    places = _places(among[0], model) if among else None
    return Networks(np.zeros(0, np.int64) if places is None else places, tuple(among))


def rank(score: float, among: NDArray[np.float64]) -> float | None:
    """Return which share of R scores and this one is lower than it, 0..R / (R + 1), ties half; None: fewer than FEWEST.

    The score itself counts as one of them, so that if it is a draw like the others, 0.95 is reached in at most 5 of 100
    cases, however few the others are (Phipson & Smyth 2010).
    """
    if len(among) < FEWEST:
        return None
    equal = np.abs(among - score) < 1e-6
    return float(((among < score) & ~equal).sum() + equal.sum() / 2) / (len(among) + 1)


def _places(untrained: Layers, model: Layers) -> NDArray[np.int64] | None:
    """Return which layers of the model those of the untrained networks stand for; None: they are of another architecture."""
    if untrained.networks is None or untrained.positions is None or not len(untrained.layers):
        return None
    first = np.flatnonzero(untrained.networks == untrained.networks[0])
    places = untrained.positions[first]
    if places[-1] != len(model.layers) - 1:
        return None
    pairs = ((untrained.layers[at], model.layers[to]) for at, to in zip(first, places, strict=True))
    same = all((one.type, one.call, one.shape) == (other.type, other.call, other.shape) for one, other in pairs)
    return places if same else None
