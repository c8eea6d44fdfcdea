"""The figures that requirements are about: of one version, by its products, and of its answers beside another version's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.class_names import class_number
from layerscope.requirement import Requirement
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.evaluation import Evaluation

Integers = NDArray[np.integer[Any]]

OWN: Final = ("accuracy", "accuracy[CLASS]", "ece", "errors", "findings", "top5_accuracy")
OF_CHANGE: Final = ("broken", "churn", "difference", "fixed")
FINDINGS: Final = "findings"
SHARES: Final = {"accuracy": (0, 1), "top5_accuracy": (0, 1), "ece": (0, 1), "churn": (0, 1), "difference": (-1, 1)}
"""Figures that are shares of the test images, with the least and the greatest that they can be."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the answers from one version to the next, over the same test images.

    `fixed`: images that were wrong and are right; `broken`: that were right and are wrong; `different`: that are answered
    otherwise, right or not.
    """

    images: int
    fixed: int
    broken: int
    different: int

    @property
    def churn(self) -> float:
        """Return the share of the images that are answered otherwise."""
        return self.different / self.images

    @property
    def difference(self) -> float:
        """Return by how much the accuracy is greater than before, as a share."""
        return (self.fixed - self.broken) / self.images


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a version: `findings` is None where nobody requires it, `change` where there is no other version."""

    identity: Identity
    evaluation: Evaluation
    findings: int | None = None
    change: Change | None = None


def change(labels: Integers, before: Integers, after: Integers) -> Change:
    """Compare the answers of two versions; all are class numbers (N,), -1 where an output was not finite."""
    was, is_now = before == labels, after == labels
    return Change(
        images=len(labels),
        fixed=int((~was & is_now).sum()),
        broken=int((was & ~is_now).sum()),
        different=int((before != after).sum()),
    )


def understood(required: Requirement, *, with_change: bool) -> None:
    """Look at a requirement before anything is asked for.

    Raises:
        ValueError: there is no such figure, it needs another version, or it can never be as is required.
    """
    name = required.figure
    if name in OF_CHANGE and not with_change:
        raise ValueError(f"{required.text!r} is about two versions: give the other with --against")
    if name not in {one.partition("[")[0] for one in (*OWN, *OF_CHANGE)}:
        near = difflib.get_close_matches(name, (*OWN, *OF_CHANGE), n=1)
        meant = f" did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no figure {name!r}:{meant} there are {_listed(OWN, with_change)}")
    if required.of_class is not None and name != "accuracy":
        raise ValueError(
            f"{name} is not known class by class; of the figures only accuracy is, as in 'accuracy[8]>0.9'"
        )
    least, greatest = SHARES.get(name, (0, float("inf")))
    if not least <= required.bound <= greatest:
        known = (
            f"a share, from {least} to {greatest}: 0.95 is 95 %" if name in SHARES else "a number of them, 0 or more"
        )
        raise ValueError(f"{required.text!r} says nothing: {name} is {known}")


def value_of(required: Requirement, known: Known) -> float:
    """Return the figure that a requirement is about.

    Raises:
        ValueError: it is not known of this version; the message says why, and which are.
    """
    found = _recall(required.of_class, known) if required.of_class is not None else _figures(known)[required.figure]
    if found is None:
        raise ValueError(_absence(required, known))
    return found


def _figures(known: Known) -> dict[str, float | None]:
    evaluation, changed = known.evaluation, known.change
    return {
        "accuracy": evaluation.accuracy,
        "errors": evaluation.images - evaluation.correct,
        "top5_accuracy": evaluation.top5_accuracy,
        "ece": evaluation.calibration.ece if evaluation.calibration else None,
        "findings": known.findings,
        "fixed": changed.fixed if changed else None,
        "broken": changed.broken if changed else None,
        "churn": changed.churn if changed else None,
        "difference": changed.difference if changed else None,
    }


def _recall(of_class: str, known: Known) -> float | None:
    classes = known.evaluation.classes
    try:
        return classes[class_number(of_class, [one.name for one in classes], known.identity)].recall
    except Unanswerable as error:
        raise ValueError(f"{error} {error.answer.hint}") from error


def _absence(required: Requirement, known: Known) -> str:
    reasons = {
        "accuracy": f"no test image is of the class {required.of_class!r}",
        "top5_accuracy": f"{known.identity.dataset} has fewer than six classes",
        "ece": f"outputs of {known.evaluation.non_finite:,} images are not finite",
    }
    there = _figures(known)
    names = [one for one in OWN if there.get(one, 0) is not None or one == FINDINGS]
    said = _listed(tuple(names), known.change is not None)
    return f"{known.identity.subject} has no {required.figure} of that: {reasons[required.figure]}; it has {said}"


def _listed(own: tuple[str, ...], with_change: bool) -> str:
    also = f", {', '.join(OF_CHANGE)}" if with_change else f"; with --against also {', '.join(OF_CHANGE)}"
    return f"{', '.join(own)}{also}"
