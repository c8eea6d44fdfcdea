"""Evaluation: how right and how sure a model is on the test part, from its stored predictions."""

from __future__ import annotations

import math

import numpy as np

from layerscope.functions.evaluation.calibration import calibration
from layerscope.functions.evaluation.scores import class_figures, score_images, wilson_interval
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset

SMALLEST_LIKELIHOOD = 1e-12
TOP = 5


def compute(predictions: Predictions, dataset: Dataset) -> Evaluation:
    """Hold the outputs against the labels of the test part; images whose outputs are not finite count as wrong."""
    labels = dataset.part("test").labels
    names = dataset.description.classes
    scores = score_images(predictions.outputs, labels, predictions.output_kind)
    right = scores.predicted == labels
    images, correct = len(labels), int(right.sum())
    low, high = wilson_interval(correct, images)
    classes = class_figures(scores.predicted, labels, names)
    there = [one for one in classes if one.support]
    finite = predictions.non_finite == 0
    floor = math.log(SMALLEST_LIKELIHOOD)
    return Evaluation(
        images=images,
        correct=correct,
        accuracy=correct / images,
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=_mean([one.recall for one in there]),
        loss=max(0.0, -float(scores.log_likelihood.mean())) if finite else None,
        nll=max(0.0, -float(scores.log_likelihood.clip(min=floor).mean())) if finite else None,
        brier=float(scores.brier.mean()) if finite else None,
        top5_accuracy=float((scores.rank < TOP).mean()) if len(names) > TOP else None,
        macro_f1=_mean([one.f1 for one in there]),
        non_finite=predictions.non_finite,
        output_kind=predictions.output_kind,
        classes=classes,
        calibration=calibration(scores.confidence, right, Evaluation.declared.seed) if finite else None,
    )


def _mean(figures: list[float | None]) -> float:
    """Return the mean of figures that are known to be there."""
    return float(np.mean([figure for figure in figures if figure is not None]))


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Evaluation, compute)
