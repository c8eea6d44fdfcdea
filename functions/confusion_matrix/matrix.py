"""What is read off a confusion matrix; rows are true classes, columns predicted ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.classification import Counts
from layerscope.schemas.products.confusion_matrix import Confusion

Rates = NDArray[np.float64]


def row_rates(counts: Counts) -> Rates:
    """Return each row (C, C) as shares of its sum; NaN for a class without images."""
    sums = counts.sum(axis=1, keepdims=True)
    rates: Rates = np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0)
    return rates


def most_confused(counts: Counts, names: tuple[str, ...], most: int) -> tuple[Confusion, ...]:
    """Return the largest off-diagonal cells, most images first; of equals the larger share, then the earlier cell."""
    rates = row_rates(counts)
    true, predicted = np.nonzero(counts * (1 - np.eye(len(counts), dtype=np.int64)))
    order = np.lexsort((predicted, true, -rates[true, predicted], -counts[true, predicted]))[:most]
    return tuple(
        Confusion(
            true=int(row),
            predicted=int(column),
            true_name=names[row],
            predicted_name=names[column],
            images=int(counts[row, column]),
            rate=float(rates[row, column]),
        )
        for row, column in zip(true[order], predicted[order], strict=True)
    )


def condensed(counts: Counts, names: tuple[str, ...], most: int) -> tuple[Counts, tuple[str, ...]]:
    """Return the matrix with at most `most` classes: those with the most errors, in their order, and "(other)".

    An error counts for both of its classes. Nothing is lost: the row and column "(other)" hold the sums of the rest.
    """
    if len(counts) <= most:
        return counts, names
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    kept = np.sort(np.argsort(-errors, kind="stable")[: most - 1])
    place = np.full(len(counts), most - 1)
    place[kept] = np.arange(most - 1)
    small = np.zeros((most, most), np.int64)
    np.add.at(small, (place[:, None], place), counts)
    return small, (*(names[k] for k in kept), "(other)")
