"""Evaluation: how right and how sure a model is on the test part, from its stored predictions."""

from __future__ import annotations

import numpy as np

from layerscope.functions.analysis.calibration import calibration
from layerscope.functions.analysis.classification import balanced_accuracy, log_loss
from layerscope.functions.evaluation.scores import brier_score, class_figures, score_images, wilson_interval
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset

SMALLEST_LIKELIHOOD = 1e-12
TOP = 5


def compute(predictions: Predictions, dataset: Dataset) -> Evaluation:
    """Hold the outputs against the labels of the test part; images whose outputs are not finite count as wrong.

    `loss` is ours: scikit-learn's clips probabilities at 2.2e-16, which lets an image add 36.04 at most. For the logits
    (100, 0) and the second class it gives 36.04, and the cross-entropy is 100.
    """
    labels = dataset.part("test").labels
    names = dataset.description.classes
    scores = score_images(predictions.outputs, labels, predictions.output_kind)
    right = scores.predicted == labels
    images, correct = len(labels), int(right.sum())
    low, high = wilson_interval(correct, images)
    classes = class_figures(scores.predicted, labels, names)
    finite = predictions.non_finite == 0
    likelihood = np.exp(scores.log_likelihood).clip(SMALLEST_LIKELIHOOD, 1)
    return Evaluation(
        images=images,
        correct=correct,
        accuracy=correct / images,
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=balanced_accuracy(labels, scores.predicted),
        loss=max(0.0, -float(scores.log_likelihood.mean())) if finite else None,
        nll=log_loss(likelihood) if finite else None,
        brier=brier_score(predictions.outputs, labels, predictions.output_kind) if finite else None,
        top5_accuracy=float((scores.rank < TOP).mean()) if len(names) > TOP else None,
        macro_f1=float(np.mean([one.f1 for one in classes if one.support])),
        non_finite=predictions.non_finite,
        output_kind=predictions.output_kind,
        classes=classes,
        calibration=calibration(scores.confidence, right, Evaluation.declared.seed) if finite else None,
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Evaluation, compute, imports=("sklearn.metrics",))
