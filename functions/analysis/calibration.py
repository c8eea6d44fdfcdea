"""Calibration: how far a model's confidence is from its accuracy, and how far it would be by chance alone."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.products.evaluation import Calibration, ReliabilityBin

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BINS: Final = 15
DRAWS: Final = 1_000
_CELLS: Final = 4_000_000  # random numbers at a time, 32 MB


def calibration(confidence: Floats, correct: Flags, seed: int | None) -> Calibration:
    """Return the expected calibration error (Guo et al. 2017), its bins, and its noise floor, for images (N,)."""
    place = _bins_of(confidence)
    images = np.bincount(place, minlength=BINS)
    sure = np.bincount(place, weights=confidence, minlength=BINS)
    right = np.bincount(place, weights=correct, minlength=BINS)
    chance = simulated_errors(confidence, seed)
    return Calibration(
        ece=calibration_error(confidence, correct),
        noise_floor=float(chance.mean()),
        noise_floor_95=float(np.quantile(chance, 0.95)),
        bins=tuple(
            ReliabilityBin(
                lower=k / BINS,
                upper=(k + 1) / BINS,
                images=int(images[k]),
                confidence=float(sure[k] / images[k]) if images[k] else None,
                accuracy=float(right[k] / images[k]) if images[k] else None,
            )
            for k in range(BINS)
        ),
    )


def calibration_error(confidence: Floats, correct: Flags) -> float:
    """Return the expected calibration error alone."""
    place = _bins_of(confidence)
    sure = np.bincount(place, weights=confidence, minlength=BINS)
    right = np.bincount(place, weights=correct, minlength=BINS)
    return float(np.abs(right - sure).sum() / len(confidence))


def simulated_errors(confidence: Floats, seed: int | None) -> Floats:
    """Return the calibration errors (DRAWS,) of models that are perfectly calibrated and have these confidences (N,).

    The error is never 0 on finitely many images, and larger the fewer there are (Roelofs et al. 2022). So each draw
    lets every image be right with the probability that its confidence claims: the consistency resampling of Bröcker &
    Smith 2007.
    """
    order = np.argsort(_bins_of(confidence), kind="stable")
    sorted_confidence = confidence[order]
    starts = np.unique(_bins_of(sorted_confidence), return_index=True)[1]
    sure = np.add.reduceat(sorted_confidence, starts)
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS // len(confidence))
    errors = np.empty(DRAWS)
    for first in range(0, DRAWS, at_once):
        some = errors[first : first + at_once]
        right = random.random((len(some), len(confidence))) < sorted_confidence
        counts = np.add.reduceat(right, starts, axis=1, dtype=np.int64)
        some[:] = np.abs(counts - sure).sum(axis=1) / len(confidence)
    return errors


def _bins_of(confidence: Floats) -> NDArray[np.int64]:
    """Return the bin of each confidence: bin k is (k / 15, (k + 1) / 15], the first with its lower end too."""
    upper = np.arange(1, BINS) / BINS
    places: NDArray[np.int64] = np.searchsorted(upper, confidence, side="left")
    return places
