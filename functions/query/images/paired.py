"""Two models on the same test images, image by image: from the arrays of `example_images` and `predictions`. Blocking."""

from __future__ import annotations

from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.paired import RightAlone, difference, holm, mcnemar, told
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.images import answered_images
from layerscope.functions.query.images.answered_images import Answered
from layerscope.functions.query.images.ensemble import ensemble_accuracy
from layerscope.schemas.identity import Identity
from layerscope.schemas.paired import PairedAnswer, PairedClass
from layerscope.stores.object_store import ObjectStore

Mask = NDArray[np.bool_]


def paired(store: ObjectStore, a: Identity, b: Identity) -> PairedAnswer:
    """Hold two models' answers to the same test images against each other.

    Raises:
        Unanswerable: there is no such model, its answers are not there (yet), or they are to other images.
    """
    first, second = _both(store, a, b)
    right_a, right_b = first.right, second.right
    alone = _alone(first, second)
    low, high = difference(alone.only_a, alone.only_b, alone.images)
    found = PairedAnswer(
        images=alone.images,
        both=int((right_a & right_b).sum()),
        only_a=alone.only_a,
        only_b=alone.only_b,
        neither=int((~right_a & ~right_b).sum()),
        differ=int((first.predicted != second.predicted).sum()),
        difference=float(right_b.mean() - right_a.mean()),
        low=low,
        high=high,
        p_value=alone.p_value,
        better=alone.better,
        ensemble=ensemble_accuracy(store, (first, second)),
        verdict="",
        classes=by_class(first, right_a & ~right_b, right_b & ~right_a),
    )
    return found.model_copy(update={"verdict": verdict(a, b, found)})


def paired_or_why_not(store: ObjectStore, a: Identity, b: Identity) -> tuple[PairedAnswer | None, str | None]:
    """Return the same, or else None and the reason: of two models there is more to tell."""
    try:
        return paired(store, a, b), None
    except Unanswerable as error:
        return None, error.answer.message


def right_alone(store: ObjectStore, a: Identity, b: Identity) -> RightAlone | None:
    """Return how many test images only one of two models has right.

    None where their answers are not there (yet), or are to other images.

    Raises:
        Unanswerable: there is no such model.
    """
    try:
        return _alone(*_both(store, a, b))
    except Unanswerable as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise
        return None


def _both(store: ObjectStore, a: Identity, b: Identity) -> tuple[Answered, Answered]:
    first, second = answered_images.read(store, a), answered_images.read(store, b)
    answered_images.same_images(first, second)
    return first, second


def _alone(a: Answered, b: Answered) -> RightAlone:
    return RightAlone(len(a.labels), int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum()))


def verdict(a: Identity, b: Identity, found: PairedAnswer) -> str:
    """Say which of two models is the more accurate, as far as these images tell."""
    if not found.differ:
        return f"The two answer all {found.images:,} test images alike."
    if (a.dataset, a.model) == (b.dataset, b.model):
        ways = (
            f"From version {a.version} to {b.version}, {found.only_b:,} of {found.images:,} test images were fixed, "
            f"{found.only_a:,} broken, and {found.differ:,} are answered otherwise."
        )
    else:
        ways = (
            f"Of {found.images:,} test images, {found.only_b:,} only {b.subject} has right, and {found.only_a:,} only "
            f"{a.subject}."
        )
    if found.better is None:
        return f"{ways} That is within chance ({told(found.p_value)}): they do not tell which is the more accurate."
    better = b if found.better == "b" else a
    return f"{ways} {better.subject} is the more accurate, by more than chance explains ({told(found.p_value)})."


def by_class(answered: Answered, only_a: Mask, only_b: Mask) -> tuple[PairedClass, ...]:
    """Return, of each class with test images, who alone has how many of them right; the largest differences first.

    `only_a` and `only_b` (N,) are the images that one model alone has right; p-values are corrected by Holm.
    """
    size = len(answered.classes)
    counts = [np.bincount(answered.labels[mask], minlength=size) for mask in (slice(None), only_a, only_b)]
    rows = [(k, *(int(one[k]) for one in counts)) for k in range(size) if counts[0][k]]
    worth = holm([mcnemar(a, b) for _, _, a, b in rows])
    found = []
    for (k, images, a, b), p_value in zip(rows, worth, strict=True):
        low, high = difference(a, b, images)
        found.append(
            PairedClass(
                label=k,
                name=answered.classes[k],
                images=images,
                only_a=a,
                only_b=b,
                difference=(b - a) / images,
                low=low,
                high=high,
                p_value=p_value,
            )
        )
    return tuple(sorted(found, key=lambda one: -abs(one.difference)))
