"""Rules over all answers at once: not finite, one for all images, labels in another order, no better than chance."""

from __future__ import annotations

from typing import Final

import numpy as np

from layerscope.functions.analysis.chance import Agreement, agreement
from layerscope.functions.findings.evidence import Evidence, Found, NotChecked

MOVED_MOST: Final = 0.5
"""A class is moved where more than this share of its images is answered as one other, which no class else has."""
MOVED_OWN: Final = 0.25
MOVED_ERRORS: Final = 0.7
MOVED_RIGHT: Final = 0.6
"""Of all mistakes so many must be of moved classes, and so many images right in the other order: clusters that an untrained
network happens to make explain less (0.2 to 0.4 of images in 300 untrained networks on digits)."""


def outputs_not_finite(evidence: Evidence) -> Found | None:
    """Images whose outputs hold a NaN or infinity; any is one too many."""
    lost = np.flatnonzero(~evidence.finite)
    if not len(lost):
        return None
    share = len(lost) / evidence.images
    figures = {"images": len(lost), "of": evidence.images, "share": share}
    return Found("outputs_not_finite", share, figures, "predictions", images=tuple(map(int, lost)))


def agreed(evidence: Evidence) -> Agreement:
    """Hold the answers against the labels."""
    answered = evidence.counts.sum(axis=0)
    correct, high = evidence.evaluation.correct, evidence.evaluation.accuracy_high
    return agreement(evidence.support.tolist(), answered.tolist(), correct, high)


def constant_answer(evidence: Evidence) -> Found | None:
    """One class for 99 % of all images, of which no class has 95 %."""
    one = agreed(evidence).constant
    if one is None:
        return None
    answered = int(evidence.counts[:, one].sum())
    figures = {
        "answered": answered,
        "of": evidence.images,
        "accuracy": evidence.evaluation.accuracy,
        "share": evidence.support[one] / evidence.images,
    }
    return Found("constant_answer", 1 - evidence.evaluation.accuracy, figures, "confusion_matrix", classes=(one,))


def labels_permuted(evidence: Evidence) -> Found | NotChecked | None:
    """Classes most of whose images are answered as one other class, one to one: the labels are in another order.

    The order that makes most images right is a linear assignment (Kuhn 1955), SciPy's.
    """
    if evidence.classes < 2:
        return NotChecked("there is one class only")
    from scipy.optimize import linear_sum_assignment

    counts = evidence.counts
    _, other = linear_sum_assignment(-counts)
    classes = np.arange(evidence.classes)
    rows = np.maximum(evidence.support, 1)
    is_moved = (
        (counts[classes, other] > MOVED_MOST * rows) & (counts.diagonal() < MOVED_OWN * rows) & (other != classes)
    )
    moved = np.flatnonzero(is_moved)
    errors = evidence.images - int(evidence.right.sum())
    explained = int(counts[moved, other[moved]].sum())
    right = int(np.where(is_moved, counts[classes, other], counts.diagonal()).sum())
    if len(moved) < 2 or explained < MOVED_ERRORS * errors or right < MOVED_RIGHT * evidence.images:
        return None
    shifts = set((other[moved] - moved) % evidence.classes)
    shift = int(next(iter(shifts))) if len(shifts) == 1 and len(moved) > 0.8 * np.count_nonzero(evidence.support) else 0
    shift = shift - evidence.classes if shift > evidence.classes / 2 else shift
    accuracy = evidence.evaluation.accuracy
    figures = {
        "moved": len(moved),
        "classes": evidence.classes,
        "accuracy": accuracy,
        "accuracy_then": right / evidence.images,
        "shift": shift,
        "first": int(moved[0]),
        "first_as": int(other[moved[0]]),
    }
    return Found(
        "labels_permuted",
        right / evidence.images - accuracy,
        figures,
        "confusion_matrix",
        classes=tuple(int(one) for k in moved for one in (k, other[k])),
        way="shifted" if shift else "",
    )


def accuracy_at_chance(evidence: Evidence) -> Found | None:
    """Right no more often than answers that are dealt to the images without looking, 1 in 1,000 aside."""
    found = agreed(evidence)
    if found.constant is not None or not found.at_chance:
        return None
    figures = {
        "accuracy": evidence.evaluation.accuracy,
        "chance": found.chance,
        "low": evidence.evaluation.accuracy_low,
        "high": evidence.evaluation.accuracy_high,
        "of": evidence.images,
    }
    return Found("accuracy_at_chance", 1 - evidence.evaluation.accuracy, figures, "evaluation")
