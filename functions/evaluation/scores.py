"""Scores of single images, and the figures of a whole test part that are made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.outputs import Outputs, finite_rows, log_probabilities, predicted_classes
from layerscope.schemas.products.evaluation import ClassFigures
from layerscope.schemas.products.predictions import OutputKind

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ROWS: Final = 4_096  # images at a time: float64 tables of 1,000 classes stay at 33 MB
_NORMAL_975: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ImageScores:
    """What each image (N,) comes to; the float fields are NaN where its outputs are not finite.

    `predicted` is -1 there. `rank` is 0 where the true class has the largest output; of equal outputs the first leads.
    """

    predicted: Labels
    rank: Labels
    confidence: Floats
    log_likelihood: Floats
    brier: Floats


def score_images(outputs: Outputs, labels: Labels, kind: OutputKind) -> ImageScores:
    """Score outputs (N, C) against labels (N,)."""
    parts = [
        _score(outputs[start : start + ROWS], labels[start : start + ROWS], kind)
        for start in range(0, len(outputs), ROWS)
    ]
    return ImageScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _score(outputs: Outputs, labels: Labels, kind: OutputKind) -> tuple[Labels, Labels, Floats, Floats, Floats]:
    finite = finite_rows(outputs)
    scored = np.full((3, len(outputs)), np.nan)
    rank = np.full(len(outputs), outputs.shape[1])
    if finite.any():
        rows, true = outputs[finite], labels[finite]
        log_p = log_probabilities(rows, kind)
        p = np.exp(log_p)
        log_p_true = np.take_along_axis(log_p, true[:, None], axis=1)[:, 0]
        scored[0, finite] = np.minimum(p.max(axis=1), 1)
        scored[1, finite] = log_p_true
        scored[2, finite] = np.square(p).sum(axis=1) - 2 * np.exp(log_p_true) + 1
        rank[finite] = _rank(rows, true)
    return predicted_classes(outputs), rank, scored[0], scored[1], scored[2]


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
    hits = np.bincount(labels[predicted == labels], minlength=count)
    return tuple(
        ClassFigures(
            name=name,
            support=int(true),
            predicted=int(said),
            precision=_ratio(hit, said),
            recall=_ratio(hit, true),
            f1=_ratio(2 * hit, true + said),
        )
        for name, true, said, hit in zip(names, support, claimed, hits, strict=True)
    )


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927): inside 0..1, and right for small n and near the ends."""
    z2 = _NORMAL_975**2
    share = correct / images
    middle = share + z2 / (2 * images)
    reach = _NORMAL_975 * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    scale = 1 + z2 / images
    low, high = (middle - reach) / scale, (middle + reach) / scale
    return (0.0 if correct == 0 else low), (1.0 if correct == images else high)
