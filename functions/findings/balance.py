"""Rules over how many images each class has: a class that is rare in the test part, or in the train part."""

from __future__ import annotations

from typing import Final

import numpy as np

from layerscope.functions.findings.evidence import Evidence, Found, Integers, NotChecked
from layerscope.schemas.products.findings import FindingKind

RARE: Final = 0.1
"""Of an even share, below which a class is called rare: what cleanlab's Datalab calls imbalanced."""
UNLIKELY: Final = 0.001


def rare_in_test(evidence: Evidence) -> Found | NotChecked | None:
    """Classes with less than a tenth of an even share of the test images (binomial, every class tried)."""
    return _rare(evidence, "test_imbalanced", evidence.support)


def rare_in_train(evidence: Evidence) -> Found | NotChecked | None:
    """The same of the train images; a class may be there that has test images only."""
    if "train" not in evidence.dataset.parts:
        return NotChecked("the dataset has no train part")
    counts = np.bincount(evidence.dataset.part("train").labels, minlength=evidence.classes)
    return _rare(evidence, "train_imbalanced", counts)


def _rare(evidence: Evidence, kind: FindingKind, counts: Integers) -> Found | NotChecked | None:
    used = np.flatnonzero((counts > 0) | (evidence.support > 0))
    if len(used) < 2:
        return NotChecked("there is one class only")
    from scipy.stats import binom

    images, even = int(counts.sum()), float(counts.sum() / len(used))
    chance = binom.cdf(counts[used], images, 1 / len(used)) * len(used)
    rare = used[(counts[used] < RARE * even) & (chance < UNLIKELY)]
    rare = rare[np.argsort(counts[rare], kind="stable")]
    if not len(rare):
        return None
    first = int(rare[0])
    figures = {
        "classes": len(rare),
        "images": int(counts[first]),
        "of": images,
        "share": float(counts[first] / images),
        "even": even,
        "accuracy": evidence.evaluation.accuracy,
        "balanced_accuracy": evidence.evaluation.balanced_accuracy,
    }
    shown = np.flatnonzero(np.isin(evidence.labels, rare))
    return Found(kind, 0.0, figures, "evaluation", classes=tuple(map(int, rare)), images=tuple(map(int, shown)))
