"""Rules over single classes and pairs of them: what is never answered, what takes all mistakes, which pairs, which classes."""

from __future__ import annotations

from typing import Final

import numpy as np

from layerscope.functions.findings.evidence import Evidence, Found, Integers, NotChecked

UNLIKELY: Final = 0.001
FEWEST_ERRORS: Final = 10
SMALLEST_COST: Final = 0.01
"""Of all test images: what costs less is left to the tables."""
LOWER: Final = 0.15
"""By so much a class must be below all others to be called weak: in most datasets some class is harder than the others."""
ABSORBS: Final = 3
"""Times as many mistakes as fell to the class if they fell evenly."""
PAIRS: Final = 3
FEWEST_OF_PAIRS: Final = 20
PAIRS_COST: Final = 0.02
"""Few mistakes of a sound model lie between few classes as well: some look alike."""
DRAWS: Final = 400


def classes_never_answered(evidence: Evidence) -> Found | None:
    """Classes with images of which the model never speaks, where that is no accident of few images."""
    support = evidence.support
    accuracy = evidence.evaluation.accuracy
    by_accident = (1 - accuracy) ** support.astype(np.float64)
    never = np.flatnonzero((support > 0) & (evidence.counts.sum(axis=0) == 0) & (by_accident < UNLIKELY))
    if not len(never):
        return None
    lost = int(support[never].sum())
    figures = {"classes": len(never), "of_classes": evidence.classes, "images": lost, "share": lost / evidence.images}
    worst = never[np.argsort(-support[never], kind="stable")]
    return Found(
        "classes_never_answered",
        lost / evidence.images,
        figures,
        "confusion_matrix",
        classes=tuple(map(int, worst)),
        images=_first(np.flatnonzero(np.isin(evidence.labels, never))),
    )


def class_absorbs_errors(evidence: Evidence) -> Found | NotChecked | None:
    """A class that takes far more of the mistakes than if each fell on any other class alike (binomial, every class tried)."""
    if evidence.classes < 3:
        return NotChecked("with two classes every mistake falls on the other one")
    from scipy.stats import binom

    wrong = _mistakes(evidence.counts)
    errors = int(wrong.sum())
    if errors < FEWEST_ERRORS:
        return NotChecked(f"{errors} mistakes are too few to tell")
    into = wrong.sum(axis=0)
    even = (errors - wrong.sum(axis=1)) / (evidence.classes - 1)
    one = int(np.argmax(into - even))
    chance = float(binom.sf(into[one] - 1, errors, even[one] / errors)) * evidence.classes
    cost = (into[one] - even[one]) / evidence.images
    if into[one] < ABSORBS * even[one] or into[one] < 0.3 * errors or chance > UNLIKELY or cost < SMALLEST_COST:
        return None
    source = int(np.argmax(wrong[:, one]))
    if wrong[source, one] > into[one] / 2 and wrong[one, source] > wrong[source, one] / 3:
        return None  # two classes that are taken for each other
    figures = {
        "into": int(into[one]),
        "errors": errors,
        "share": into[one] / errors,
        "even": float(even[one]),
        "answered": int(evidence.counts[:, one].sum()),
        "support": int(evidence.support[one]),
    }
    taken = np.flatnonzero((evidence.predicted == one) & ~evidence.right)
    return Found("class_absorbs_errors", float(cost), figures, "confusion_matrix", classes=(one,), images=_first(taken))


def weak_classes(evidence: Evidence) -> Found | NotChecked | None:
    """The class of which most is lost, being recognised less often than all others together (binomial, every class tried)."""
    if evidence.classes < 3:
        return NotChecked("there are no other classes to compare one with, but one")
    from scipy.stats import binom

    support, right = evidence.support, evidence.counts.diagonal()
    others = (right.sum() - right) / np.maximum(evidence.images - support, 1)
    recall = right / np.maximum(support, 1)
    cost = (others - recall) * support / evidence.images
    chance = binom.cdf(right, support, others) * evidence.classes
    answered = evidence.counts.sum(axis=0) > 0
    weak = np.flatnonzero((support > 0) & answered & (chance < UNLIKELY) & (others - recall >= LOWER))
    weak = weak[np.argsort(-cost[weak], kind="stable")]
    if not len(weak) or cost[weak].sum() < SMALLEST_COST:
        return None
    first = weak[0]
    figures = {
        "classes": len(weak),
        "recall": float(recall[first]),
        "others": float(others[first]),
        "right": int(right[first]),
        "support": int(support[first]),
    }
    lost = np.flatnonzero((evidence.labels == first) & ~evidence.right)
    return Found(
        "weak_classes",
        float(cost[weak].sum()),
        figures,
        "evaluation",
        classes=tuple(map(int, weak)),
        images=_first(lost),
    )


def confused_pairs(evidence: Evidence) -> Found | NotChecked | None:
    """At most three pairs of classes that make half of all mistakes, and more than if each fell on any other class alike."""
    if evidence.classes < 4:
        return NotChecked("there are too few classes for one pair to stand out")
    wrong = _mistakes(evidence.counts)
    errors = int(wrong.sum())
    if errors < FEWEST_OF_PAIRS:
        return NotChecked(f"{errors} mistakes are too few to tell")
    a, b, pairs = _by_pairs(wrong)
    first = np.argsort(-pairs, kind="stable")[:PAIRS]
    explained = np.cumsum(pairs[first])
    needed = int(np.searchsorted(explained, errors / 2)) + 1
    if needed > PAIRS or explained[needed - 1] < PAIRS_COST * evidence.images:
        return None
    chosen = first[:needed]
    if explained[needed - 1] <= _by_chance(wrong, needed, evidence):
        return None
    one, other = int(a[chosen[0]]), int(b[chosen[0]])
    figures = {
        "pairs": needed,
        "errors": errors,
        "explained": int(explained[needed - 1]),
        "share": float(explained[needed - 1] / errors),
        "first": int(pairs[chosen[0]]),
        "forth": int(wrong[one, other]),
        "back": int(wrong[other, one]),
    }
    between = ((evidence.labels == one) & (evidence.predicted == other)) | (
        (evidence.labels == other) & (evidence.predicted == one)
    )
    return Found(
        "confused_pairs",
        float(explained[needed - 1] / evidence.images),
        figures,
        "confusion_matrix",
        classes=tuple(int(end) for k in chosen for end in (a[k], b[k])),
        images=_first(np.flatnonzero(between)),
    )


def _by_chance(wrong: Integers, pairs: int, evidence: Evidence) -> int:
    """Return what the most frequent pairs never exceeded in draws in which every mistake fell on any other class alike."""
    random = np.random.default_rng(0)
    classes, most = evidence.classes, 0
    true = np.repeat(np.arange(classes), wrong.sum(axis=1))
    for _ in range(DRAWS):
        said = random.integers(0, classes - 1, len(true))
        said += said >= true
        low, high = np.minimum(true, said), np.maximum(true, said)
        _, found = np.unique(low * classes + high, return_counts=True)
        most = max(most, int(np.sort(found)[-pairs:].sum()))
    return most


def _mistakes(counts: Integers) -> Integers:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return wrong


def _by_pairs(wrong: Integers) -> tuple[Integers, Integers, Integers]:
    a, b = np.triu_indices(len(wrong), 1)
    return a, b, (wrong + wrong.T)[a, b]


def _first(images: Integers) -> tuple[int, ...]:
    return tuple(map(int, images))
