"""What is made of a model's outputs over the common probe set: a vector for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.outputs import finite_rows, log_probabilities
from layerscope.schemas.products.class_vectors import ClassState
from layerscope.schemas.products.predictions import OutputKind

Rows = NDArray[np.float32]

_CONSTANT: Final = 1e-5
"""Of the largest logit: what rounding in float32 leaves of outputs that do not differ."""


@dataclass(frozen=True, slots=True)
class Responses:
    """The classes' unit vectors (C, n), zeros where a class has none; their states, and deviations (C,) in nats."""

    vectors: Rows
    states: tuple[ClassState, ...]
    deviations: tuple[float | None, ...]


def responses(outputs: NDArray[np.floating], kind: OutputKind) -> Responses:
    """Return what each class (C) responds to, from the outputs (n, C).

    A softmax takes no notice of what is added to all logits of an image, and two models that were trained alike may
    differ by just that; so the classes' mean is taken out of each image. What a class's logit is on the average, and how
    far it swings, is a matter of how often the class was seen and how long it was trained; so each class's own mean
    over the images is taken out, and its vector brought to unit length.
    """
    images, classes = outputs.shape
    if not finite_rows(outputs).all():
        return Responses(np.zeros((classes, images), np.float32), ("non_finite",) * classes, (None,) * classes)
    logits = log_probabilities(outputs, kind)
    relative = logits - logits.mean(axis=1, keepdims=True)
    centred = (relative - relative.mean(axis=0)).T
    lengths = np.linalg.norm(centred, axis=1)
    deviations = lengths / np.sqrt(images)
    there = deviations > _CONSTANT * max(float(np.abs(logits).max()), 1e-30)
    vectors = np.divide(centred, lengths[:, None], out=np.zeros_like(centred), where=there[:, None])
    states: tuple[ClassState, ...] = tuple("ok" if one else "constant" for one in there.tolist())
    return Responses(vectors.astype(np.float32), states, tuple(deviations.tolist()))
