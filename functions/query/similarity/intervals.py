"""Between which values a similarity, or the likeness of two models, lies on random halves of the probe images. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query.similarity import half_samples
from layerscope.functions.query.similarity.alignment import floor, likeness, totals
from layerscope.functions.query.similarity.half_samples import (
    Rows,
    by_half,
    classic_by_half,
    neighbours_by_half,
    without,
)
from layerscope.functions.query.similarity.reference_population import Layers
from layerscope.schemas.products.layer_vectors import Metric


@dataclass(frozen=True, slots=True)
class Halves:
    """Makes the vectors of layers over each half of the images; `inputs` are those of the images themselves, by metric."""

    metric: Metric
    images: int
    inputs: Rows | None

    def of(self, layers: Layers, position: int) -> Rows:
        """Return the unit vectors of a layer (DRAWS, d); NaN where a half has no pattern."""
        if self.metric == "classic":
            return classic_by_half(layers.vectors("classic")[position], self.images)
        if self.metric == "neighbours":
            rows = neighbours_by_half(layers.vectors("classic")[position], self.images)
        else:
            rows = by_half(layers.vectors("cka")[position], self.images)
        return rows if self.inputs is None else without(rows, self.inputs)


def halves(metric: Metric, images: int, population: Sequence[Layers]) -> Halves | None:
    """Return what makes the vectors by a metric; None: too few images, or it is not known what these have in common.

    One of the population tells what the images themselves are like.
    """
    if images < half_samples.FEWEST_IMAGES:
        return None
    if metric in ("cka", "classic"):
        return Halves(metric, images, None)
    inputs = next(((one.inputs, one.input_gram) for one in population if one.inputs is not None), None)
    if inputs is None:
        return None
    vector, gram = inputs
    if vector is None or not vector.any():  # images without a pattern leave nothing to take out
        return Halves(metric, images, None)
    if metric == "deconfounded":
        return Halves(metric, images, by_half(vector, images))
    return None if gram is None else Halves(metric, images, neighbours_by_half(gram, images))


def of_score(made: Halves, score: float, first: Rows, second: Rows) -> tuple[float, float] | None:
    """Return between which values the similarity of two layers lies.

    By `classic` it is the larger the fewer the images are, so these values are moved until their mean is the score of all.
    """
    scores = (first * second).sum(axis=1)
    return half_samples.interval(scores - scores.mean() + score if made.metric == "classic" else scores)


def of_likeness(made: Halves, first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return between which values the likeness of two models lies, from all layers of each: (n, DRAWS, d), (m, DRAWS, d)."""
    scores = np.matmul(first.transpose(1, 0, 2), second.transpose(1, 2, 0)).astype(np.float64)
    sums = totals(scores, floor(made.images // 2))
    return half_samples.interval(np.array([likeness(float(one), len(first), len(second)) for one in sums]))


def stacked(made: Halves, layers: Layers) -> NDArray[np.float32]:
    """Return the vectors of all layers of a model that can be compared: (n, DRAWS, d)."""
    comparable = np.flatnonzero(layers.vectors(made.metric).any(axis=1))
    return np.stack([made.of(layers, int(at)).astype(np.float32) for at in comparable])
