"""What a model's outputs say, image by image. NumPy only: the functions behind `predictions` run without torch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.products.predictions import OutputKind

Outputs = NDArray[np.floating]
Floats = NDArray[np.float64]

# A float32 softmax over 10,000 classes sums to 1 within 1e-5; no trained logits do so on every image.
SUM_TOLERANCE: Final = 1e-4
SMALLEST: Final = float(np.finfo(np.float32).tiny)


def finite_rows(outputs: Outputs) -> NDArray[np.bool_]:
    """Tell which images' outputs (N, C) are free of NaN and infinity: (N,)."""
    return np.asarray(np.isfinite(outputs).all(axis=1), dtype=np.bool_)


def predicted_classes(outputs: Outputs) -> NDArray[np.int64]:
    """Return the class of the largest output of each image (N,), the first of equals; -1 where one is not finite."""
    return np.where(finite_rows(outputs), outputs.argmax(axis=1), -1)


def output_kind(outputs: Outputs) -> OutputKind:
    """Tell what rows (N, C) are, from all that are finite: a single one that does not fit decides for logits."""
    rows = outputs[finite_rows(outputs)].astype(np.float64)
    if not len(rows):
        return "logits"
    if rows.min() >= 0 and np.abs(rows.sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        return "probabilities"
    if rows.max() <= SUM_TOLERANCE and np.abs(_log_sum_exp(rows)).max() <= SUM_TOLERANCE:
        return "log_probabilities"
    return "logits"


def log_probabilities(outputs: Outputs, kind: OutputKind) -> Floats:
    """Return the natural logarithm of each class's probability (N, C), in float64; rows must be finite.

    Probabilities of zero count as the smallest normal float32, which is where a softmax in float32 ends.
    """
    rows = outputs.astype(np.float64)
    if kind == "probabilities":
        return np.log(np.maximum(rows, SMALLEST))
    if kind == "log_probabilities":
        return rows
    return rows - _log_sum_exp(rows)[:, None]


def _log_sum_exp(rows: Floats) -> Floats:
    highest = rows.max(axis=1)
    total: Floats = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=1))
    return total
