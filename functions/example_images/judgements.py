"""What the model says of each test image, and how sure it is; the images that no finite output speaks for are marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.outputs import Floats, Outputs, finite_rows, log_probabilities, predicted_classes
from layerscope.schemas.products.predictions import OutputKind

Indices = NDArray[np.int64]

ROWS: Final = 4_096  # images at a time: float64 tables of 1,000 classes stay at 33 MB


@dataclass(frozen=True, slots=True)
class Judged:
    """For each image (N,): its class, the predicted one (-1 where outputs are not finite), and both ones' probabilities."""

    labels: Indices
    predicted: Indices
    confidence: Floats
    own: Floats

    @property
    def right(self) -> Indices:
        """Return the indices of the images predicted as their own class."""
        return np.flatnonzero(self.predicted == self.labels)

    @property
    def wrong(self) -> Indices:
        """Return the indices of the images predicted as another class."""
        return np.flatnonzero((self.predicted >= 0) & (self.predicted != self.labels))

    @property
    def non_finite(self) -> Indices:
        """Return the indices of the images without finite outputs."""
        return np.flatnonzero(self.predicted < 0)

    def most_confident(self, images: Indices, most: int) -> Indices:
        """Return the surest of these images, given by ascending index; of equals the earlier."""
        return images[np.argsort(-self.confidence[images], kind="stable")[:most]]

    def least_confident(self, images: Indices, most: int) -> Indices:
        """Return the least sure of these images, given by ascending index; of equals the earlier."""
        return images[np.argsort(self.confidence[images], kind="stable")[:most]]


def judge(outputs: Outputs, labels: Indices, kind: OutputKind) -> Judged:
    """Read predictions off outputs (N, C); probabilities are 0 where they are not finite."""
    confidence, own = np.zeros(len(outputs)), np.zeros(len(outputs))
    finite = np.flatnonzero(finite_rows(outputs))
    for start in range(0, len(finite), ROWS):
        some = finite[start : start + ROWS]
        probabilities = _probabilities(outputs[some], kind)
        confidence[some] = probabilities.max(axis=1)
        own[some] = np.take_along_axis(probabilities, labels[some, None], axis=1)[:, 0]
    return Judged(labels, predicted_classes(outputs), confidence, own)


def medoid(outputs: Outputs, kind: OutputKind) -> int:
    """Return which of some images (n, C) is most like the others: the smallest sum of squared distances, in probabilities.

    That sum is n times the squared distance from the mean plus a constant, so no pairs need be compared. A medoid
    (Kaufman & Rousseeuw 1987) is an image that is there, and typical; the surest mistake would be the extreme one. Of
    equals the first.
    """
    total = np.zeros(outputs.shape[1])
    parts = [outputs[start : start + ROWS] for start in range(0, len(outputs), ROWS)]
    for part in parts:
        total += _probabilities(part, kind).sum(axis=0)
    mean = total / len(outputs)
    distances = [np.square(_probabilities(part, kind) - mean).sum(axis=1) for part in parts]
    return int(np.concatenate(distances).argmin())


def _probabilities(rows: Outputs, kind: OutputKind) -> Floats:
    p: Floats = np.minimum(np.exp(log_probabilities(rows, kind)), 1)
    return p
