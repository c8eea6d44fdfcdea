"""Confusion matrix: how often each true class (row) is predicted as each class (column), as numbers and a picture."""

from __future__ import annotations

import numpy as np

from layerscope.functions.analysis.classification import confusion_counts
from layerscope.functions.analysis.outputs import predicted_classes
from layerscope.functions.confusion_matrix.heatmap import draw
from layerscope.functions.confusion_matrix.matrix import most_confused, row_rates
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset

WORST = 20


def compute(predictions: Predictions, dataset: Dataset) -> ConfusionMatrix:
    """Count the test images of each class by what they were predicted as."""
    names = dataset.description.classes
    counts = confusion_counts(dataset.part("test").labels, predicted_classes(predictions.outputs), len(names))
    return ConfusionMatrix(
        classes=names,
        counts=tuple(map(tuple, counts.tolist())),
        rates=tuple(tuple(None if np.isnan(rate) else rate for rate in row) for row in row_rates(counts).tolist()),
        left_out=predictions.non_finite,
        most_confused=most_confused(counts, names, WORST),
        heatmap=draw(counts, names),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(ConfusionMatrix, compute, imports=("sklearn.metrics",))
