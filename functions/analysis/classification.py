"""How well predicted classes and probabilities agree with the labels: scikit-learn's metrics, as products need them.

Called in the worker, and imported there: scikit-learn takes 1.4 s of computing and 170 MB. Predicted classes are those
of `outputs.predicted_classes`: -1, where the outputs are not finite, is no class, and so never right.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.int64]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_counts(labels: Classes, predicted: Classes, classes: int) -> Counts:
    """Return how many images (C, C) of each class (row) were predicted as each (column), from classes (N,).

    Images predicted as -1 are left out.

    Raises:
        ValueError: an image was predicted as a class that is not there.
    """
    from sklearn.metrics import confusion_matrix

    with _as_it_is():
        counts: Counts = confusion_matrix(labels, predicted, labels=range(classes))
    if counts.sum() != np.count_nonzero(predicted >= 0):
        raise ValueError(f"class {predicted.max()} was predicted, of {classes} classes from 0")
    return counts


def class_scores(labels: Classes, predicted: Classes, classes: int) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 (C,) of each class, from classes (N,); NaN where there is nothing to divide by."""
    from sklearn.metrics import precision_recall_fscore_support

    with _as_it_is():
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predicted, labels=range(classes), zero_division=np.nan
        )
    return precision, recall, f1


def balanced_accuracy(labels: Classes, predicted: Classes) -> float:
    """Return the mean recall of the classes that have images, from classes (N,)."""
    from sklearn.metrics import balanced_accuracy_score

    with _as_it_is():
        return float(balanced_accuracy_score(labels, predicted))


def log_loss(likelihood: Floats) -> float:
    """Return the mean of -ln(p) in nats, from the probability p (N,) in 0..1 that each image's true class was given.

    The true class is put against all others together: the log loss of many classes looks at no other probability.
    Probabilities are clipped where float64 ends, at 2.2e-16 and as far below 1: an image adds 36.04 at most, and
    2.2e-16 at least.
    """
    from sklearn import metrics

    with _as_it_is():
        return float(metrics.log_loss(np.ones(len(likelihood)), likelihood, labels=(0, 1)))


def brier_score(probabilities: Floats, labels: Classes) -> float:
    """Return the mean squared distance (0..2) of probabilities (N, C) from the one-hot labels (N,).

    What float32 left above 1 counts as 1.
    """
    from sklearn.metrics import brier_score_loss

    p = np.minimum(probabilities, 1)
    if p.shape[1] == 1:
        p = np.pad(p, ((0, 0), (0, 1)))  # of one column scikit-learn would ask for whether it is the true one
    with _as_it_is():
        return float(brier_score_loss(labels, p, labels=range(p.shape[1]), scale_by_half=False))


@contextmanager
def _as_it_is() -> Iterator[None]:
    """Take a test part as it is, without the doubts of scikit-learn.

    It warns of few images a class, of one class only, of predicted classes without images, and of probabilities whose
    sums are those of float32.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
