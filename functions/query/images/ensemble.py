"""The mean of several models' probabilities, as a model of its own: how often it is right. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from layerscope.functions.query.images.answered_images import Answered
from layerscope.functions.query.images.stored_outputs import stored_outputs
from layerscope.stores.object_store import ObjectStore

AT_ONCE: Final = 2_000_000
"""Images times classes whose probabilities are held at once: 16 MB of each model."""


def ensemble_accuracy(store: ObjectStore, answered: Sequence[Answered]) -> float | None:
    """Return the share of the test images on which the mean is right; one with an output that is not finite is wrong.

    None where outputs of one of them are not there, or have another shape.
    """
    outputs = [one for one in (stored_outputs(store, of.identity) for of in answered) if one is not None]
    if len(outputs) < len(answered) or len({one.shape for one in outputs}) > 1:
        return None
    images, classes = outputs[0].shape
    right, at_once = 0, max(1, AT_ONCE // classes)
    for start in range(0, images, at_once):
        end = min(start + at_once, images)
        mean = np.sum([one.probabilities(start, end) for one in outputs], axis=0)
        right += int((np.isfinite(mean).all(axis=1) & (mean.argmax(axis=1) == answered[0].labels[start:end])).sum())
    return right / images
