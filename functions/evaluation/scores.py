"""Scores of single images, and the figures of a whole test part that are made from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis import classification
from layerscope.functions.analysis.outputs import Outputs, finite_rows, log_probabilities, predicted_classes
from layerscope.schemas.products.evaluation import ClassFigures
from layerscope.schemas.products.predictions import OutputKind

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

CELLS: Final = 4_096_000  # outputs at a time: a float64 table of them takes 33 MB
_NORMAL_975: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ImageScores:
    """What each image (N,) comes to; the float fields are NaN where its outputs are not finite.

    `predicted` is -1 there. `rank` is 0 where the true class has the largest output; of equal outputs the first leads,
    as it does in `predicted` (scikit-learn's top-k accuracy lets the last one lead, and takes no NaN).
    """

    predicted: Labels
    rank: Labels
    confidence: Floats
    log_likelihood: Floats


def score_images(outputs: Outputs, labels: Labels, kind: OutputKind) -> ImageScores:
    """Score outputs (N, C) against labels (N,)."""
    parts = [_score(outputs[some], labels[some], kind) for some in _portions(outputs)]
    return ImageScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def brier_score(outputs: Outputs, labels: Labels, kind: OutputKind) -> float:
    """Return the Brier score (0..2) of outputs (N, C), all of them finite, against labels (N,)."""
    return sum(
        classification.brier_score(np.exp(log_probabilities(outputs[some], kind)), labels[some])
        * (len(labels[some]) / len(labels))
        for some in _portions(outputs)
    )


def _portions(outputs: Outputs) -> Iterator[slice]:
    images, classes = outputs.shape
    at_once = max(1, CELLS // classes)
    yield from (slice(start, start + at_once) for start in range(0, images, at_once))


def _score(outputs: Outputs, labels: Labels, kind: OutputKind) -> tuple[Labels, Labels, Floats, Floats]:
    finite = finite_rows(outputs)
    scored = np.full((2, len(outputs)), np.nan)
    rank = np.full(len(outputs), outputs.shape[1])
    if finite.any():
        rows, true = outputs[finite], labels[finite]
        log_p = log_probabilities(rows, kind)
        scored[0, finite] = np.minimum(np.exp(log_p).max(axis=1), 1)
        scored[1, finite] = np.take_along_axis(log_p, true[:, None], axis=1)[:, 0]
        rank[finite] = _rank(rows, true)
    return predicted_classes(outputs), rank, scored[0], scored[1]


def _rank(rows: Outputs, true: Labels) -> Labels:
    """Return how many classes lead the true one."""
    own = np.take_along_axis(rows, true[:, None], axis=1)
    earlier = np.arange(rows.shape[1]) < true[:, None]
    ranks: Labels = ((rows > own) | ((rows == own) & earlier)).sum(axis=1)
    return ranks


def class_figures(predicted: Labels, labels: Labels, names: tuple[str, ...]) -> tuple[ClassFigures, ...]:
    """Return precision, recall and F1 of each class, from predicted and true classes (N,); -1 is no class."""
    count = len(names)
    support = np.bincount(labels, minlength=count)
    claimed = np.bincount(predicted[predicted >= 0], minlength=count)
    precision, recall, f1 = classification.class_scores(labels, predicted, count)
    return tuple(
        ClassFigures(
            name=name,
            support=int(true),
            predicted=int(said),
            precision=_known(precision[k]),
            recall=_known(recall[k]),
            f1=_known(f1[k]),
        )
        for k, (name, true, said) in enumerate(zip(names, support, claimed, strict=True))
    )


def _known(score: np.float64) -> float | None:
    return None if np.isnan(score) else float(score)


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927): inside 0..1, and right for small n and near the ends."""
    z2 = _NORMAL_975**2
    share = correct / images
    middle = share + z2 / (2 * images)
    reach = _NORMAL_975 * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    scale = 1 + z2 / images
    low, high = (middle - reach) / scale, (middle + reach) / scale
    return (0.0 if correct == 0 else low), (1.0 if correct == images else high)
