"""Two to eight models on the same test images: who is right where, pair by pair, and from version to version. Blocking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.paired import LEVEL, difference, holm, mcnemar
from layerscope.functions.query import answers
from layerscope.functions.query.images import answered_images
from layerscope.functions.query.images.answered_images import Answered
from layerscope.functions.query.images.ensemble import ensemble_accuracy
from layerscope.schemas.identity import Identity
from layerscope.schemas.several import SeveralAnswer, SeveralModel, SeveralPair, SeveralStep
from layerscope.stores.object_store import ObjectStore


def several(store: ObjectStore, identities: Sequence[Identity]) -> SeveralAnswer:
    """Hold models' answers to the same test images against each other.

    Raises:
        Unanswerable: one is not there, its answers are not there (yet), or they are to other images.
    """
    answered = [answered_images.read(store, one) for one in identities]
    for other in answered[1:]:
        answered_images.same_images(answered[0], other)
    labels = answered[0].labels
    predicted = np.stack([one.predicted for one in answered])
    right = predicted == labels
    pairs = _pairs(identities, right)
    models = _models(identities, right, pairs)
    return SeveralAnswer(
        images=len(labels),
        all_right=int(right.all(axis=0).sum()),
        none_right=int((~right).all(axis=0).sum()),
        differ=int((predicted != predicted[0]).any(axis=0).sum()),
        ensemble=ensemble_accuracy(store, answered),
        models=models,
        pairs=pairs,
        steps=_steps(store, answered),
        verdict=verdict(models, len(labels)),
    )


def verdict(models: Sequence[SeveralModel], images: int) -> str:
    """Say which model is the most accurate, and which others may be, as far as these images tell."""
    best = next(one for one in models if one.beside_best == "best")
    within = [one.subject for one in models if one.beside_best == "within chance"]
    worse = [one.subject for one in models if one.beside_best == "worse"]
    said = f"{best.subject} has the most of {images:,} test images right, {best.correct:,}."
    if within:
        verb = "is" if len(within) == 1 else "are"
        said += f" {_listed(within)} {verb} within chance of it."
    if worse:
        verb = "is" if len(worse) == 1 else "are"
        said += f" {_listed(worse)} {verb} less accurate, by more than chance explains."
    return said


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _pairs(identities: Sequence[Identity], right: NDArray[np.bool_]) -> tuple[SeveralPair, ...]:
    places = list(combinations(range(len(identities)), 2))
    alone = [(int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())) for i, j in places]
    worth = holm([mcnemar(*one) for one in alone])
    images, found = right.shape[1], []
    for (i, j), (only_a, only_b), p_value in zip(places, alone, worth, strict=True):
        low, high = difference(only_a, only_b, images)
        found.append(
            SeveralPair(
                a=identities[i].subject,
                b=identities[j].subject,
                only_a=only_a,
                only_b=only_b,
                difference=(only_b - only_a) / images,
                low=low,
                high=high,
                p_value=p_value,
            )
        )
    return tuple(found)


def _models(
    identities: Sequence[Identity], right: NDArray[np.bool_], pairs: Sequence[SeveralPair]
) -> tuple[SeveralModel, ...]:
    correct, holders = right.sum(axis=1), right.sum(axis=0)
    best = identities[int(correct.argmax())].subject
    beside: Mapping[frozenset[str], Literal["worse", "within chance"]] = {
        frozenset((one.a, one.b)): "worse" if one.p_value <= LEVEL else "within chance" for one in pairs
    }
    return tuple(
        SeveralModel(
            subject=one.subject,
            correct=int(count),
            accuracy=float(count / right.shape[1]),
            alone=int((mask & (holders == 1)).sum()),
            beside_best="best" if one.subject == best else beside[frozenset((one.subject, best))],
        )
        for one, count, mask in zip(identities, correct, right, strict=True)
    )


def _steps(store: ObjectStore, answered: Sequence[Answered]) -> tuple[SeveralStep, ...]:
    if len({(one.identity.dataset, one.identity.model) for one in answered}) > 1:
        return ()
    in_time = sorted(answered, key=lambda one: answers.standing(store, one.identity).upload.modified)
    return tuple(_step(before, after) for before, after in pairwise(in_time))


def _step(before: Answered, after: Answered) -> SeveralStep:
    was, is_right = before.predicted == before.labels, after.predicted == after.labels
    return SeveralStep(
        before=before.identity.subject,
        after=after.identity.subject,
        fixed=int((~was & is_right).sum()),
        broken=int((was & ~is_right).sum()),
        differ=int((before.predicted != after.predicted).sum()),
    )
