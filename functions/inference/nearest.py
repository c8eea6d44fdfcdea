"""Which test images the model's own features have near a picture: all of them where that is cheap, else some of each class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis import costs
from layerscope.functions.analysis.inference import Classifier, inference
from layerscope.functions.analysis.outputs import predicted_classes
from layerscope.functions.inference.call import Near, NearImage
from layerscope.functions.inference.features import Features, last_weight_layer
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.errors import Refused
from layerscope.stores.datasets import PartArrays, choose_probe

K: Final = 5
BATCH: Final = 64
MOST_IMAGES: Final = 2_000
FEWEST_IMAGES: Final = 16
MULTIPLY_ADDS: Final = {"cpu": 4e10}
"""Of all searched images together: some two seconds of one core."""
MULTIPLY_ADDS_ELSEWHERE: Final = 4e12
FEATURE_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class SearchedImages:
    """Features float32 (n, D) of test images, which these are (n,), their labels, and the classes that they are given."""

    layer: str | None
    rows: NDArray[np.float32]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    reason: str | None = None

    @property
    def bytes(self) -> int:
        """Return the bytes of the arrays."""
        return self.rows.nbytes + self.indices.nbytes + self.labels.nbytes + self.predicted.nbytes


def affordable_images(model: SafeModel, device: str, labels: NDArray[np.int64], shape: tuple[int, int, int]) -> int:
    """Return how many test images may be searched, from what one costs."""
    height, width, channels = shape
    try:
        one = costs.measure(model, (channels, height, width)).multiply_adds
    except Refused:
        return min(FEWEST_IMAGES, len(labels))  # it runs, and what it costs is not known beforehand
    affordable = int(MULTIPLY_ADDS.get(device, MULTIPLY_ADDS_ELSEWHERE) / max(one, 1))
    return min(len(labels), MOST_IMAGES, max(FEWEST_IMAGES, affordable))


def search_set(
    model: SafeModel, classifier: Classifier, test: PartArrays
) -> tuple[SearchedImages, NDArray[np.float32]]:
    """Run test images through the model, and return their features and their outputs (n, C)."""
    number = affordable_images(model, classifier.device, test.labels, classifier.description.shape)
    chosen = choose_probe(test.labels, number)
    layer = last_weight_layer(model)
    features, rows, outputs = Features(layer), [], []
    bounds = np.linspace(0, len(chosen), -(-len(chosen) // BATCH) + 1).astype(int)
    with inference(), features.taken(model):
        for start, stop in pairwise(bounds.tolist()):
            outputs.append(classifier(test.images[chosen[start:stop]]).float().cpu().numpy())
            rows.append(features.rows)
    found = _stacked(rows, len(chosen))
    made = np.concatenate(outputs)
    reason = None
    if layer is None:
        reason = "The model has no layer with weights whose input could be compared."
    elif found is None:
        reason = f"The input of {layer} has no row an image, or too many numbers to be kept."
    given = found if found is not None else np.zeros((0, 0), np.float32)
    return SearchedImages(layer, given, chosen, test.labels[chosen], predicted_classes(made), reason), made


def _stacked(rows: list[NDArray[np.float32] | None], images: int) -> NDArray[np.float32] | None:
    there = [one for one in rows if one is not None and one.ndim == 2]
    if len(there) < len(rows) or sum(map(len, there)) != images:
        return None
    return np.concatenate(there) if sum(one.nbytes for one in there) <= FEATURE_BYTES else None


def nearest(tests: SearchedImages, rows: NDArray[np.float32] | None, k: int = K) -> Near:
    """Return the `k` test images whose features are nearest to the first of these rows; of equals the first."""
    reason = tests.reason
    if reason is None and (rows is None or not np.isfinite(rows[0]).all()):
        reason = f"The input of {tests.layer} is not finite for this picture."
    if reason is not None or rows is None:
        return Near(layer=tests.layer, reason=reason)
    distances = np.linalg.norm(tests.rows.astype(np.float64) - rows[0].astype(np.float64), axis=1)
    distances[~np.isfinite(distances)] = np.inf
    order = np.argsort(distances, kind="stable")[:k]
    images = tuple(
        NearImage(int(tests.indices[one]), float(distances[one]), int(tests.labels[one]), int(tests.predicted[one]))
        for one in order
        if np.isfinite(distances[one])
    )
    return Near(tests.layer, tests.rows.shape[1], len(tests.rows), images)
