"""Test images that a model's own features are searched in: all of them where that is cheap, else some of each class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.features import Features, last_weight_layer
from layerscope.functions.analysis.inference import Classifier, Images, inference
from layerscope.functions.analysis.outputs import predicted_classes
from layerscope.models.safe_form import SafeModel
from layerscope.stores.datasets import PartArrays, choose_probe

BATCH: Final = 64
MOST_IMAGES: Final = 2_000
FEWEST_IMAGES: Final = 16
FEATURE_BYTES: Final = 64 * 2**20

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """What came of a forward pass: outputs (N, C), and the features (N, D); None: the layer has none of an image, or too many."""

    outputs: Rows
    features: Rows | None


@dataclass(frozen=True, slots=True, eq=False)
class SearchedImages:
    """Features float32 (n, D) of test images, which these are (n,), their labels, and the classes that they are given."""

    layer: str | None
    rows: Rows
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    reason: str | None = None

    @property
    def bytes(self) -> int:
        """Return the bytes of the arrays."""
        return self.rows.nbytes + self.indices.nbytes + self.labels.nbytes + self.predicted.nbytes


def affordable_images(images: int, multiply_adds: int, one: int) -> int:
    """Return how many of so many images may be searched, where one costs `one` multiply-adds."""
    return min(images, MOST_IMAGES, max(FEWEST_IMAGES, multiply_adds // max(one, 1)))


def distances(rows: NDArray[np.floating], row: Rows) -> NDArray[np.float64]:
    """Return the Euclidean distances (n,) of rows (n, D) from another (D,); infinite where not finite."""
    with np.errstate(invalid="ignore"):  # of what is not finite
        found = np.linalg.norm(rows.astype(np.float64, copy=False) - row.astype(np.float64), axis=1)
    found[~np.isfinite(found)] = np.inf
    return np.asarray(found, np.float64)


def search_set(model: SafeModel, classifier: Classifier, test: PartArrays, number: int) -> tuple[SearchedImages, Rows]:
    """Run so many test images through the model, and return their features and their outputs (n, C)."""
    chosen = choose_probe(test.labels, number)
    layer = last_weight_layer(model)
    made = passed(model, classifier, layer, test.images[chosen])
    reason = None
    if layer is None:
        reason = "The model has no layer with weights whose input could be compared."
    elif made.features is None:
        reason = f"The input of {layer} has no row an image, or too many numbers to be kept."
    given = made.features if made.features is not None else np.zeros((0, 0), np.float32)
    found = SearchedImages(layer, given, chosen, test.labels[chosen], predicted_classes(made.outputs), reason)
    return found, made.outputs


def passed(model: SafeModel, classifier: Classifier, layer: str | None, images: Images) -> Passed:
    """Run images (N, H, W, C) through the model in even batches, and take what a layer is given; none runs alone."""
    features, rows, outputs = Features(layer), [], []
    bounds = np.linspace(0, len(images), -(-len(images) // BATCH) + 1).astype(int)
    with inference(), features.taken(model):
        for start, stop in pairwise(bounds.tolist()):
            # Twice, where it is one: what models that squeeze their features stumble over is a single image.
            batch = np.repeat(images[start:stop], 2 if stop - start == 1 else 1, axis=0)
            outputs.append(classifier(batch).float().cpu().numpy()[: stop - start])
            rows.append(features.rows if features.rows is None else features.rows[: stop - start])
    return Passed(np.concatenate(outputs), _stacked(rows, len(images)))


def _stacked(rows: list[Rows | None], images: int) -> Rows | None:
    there = [one for one in rows if one is not None and one.ndim == 2]
    if len(there) < len(rows) or sum(map(len, there)) != images:
        return None
    return np.concatenate(there) if sum(one.nbytes for one in there) <= FEATURE_BYTES else None
