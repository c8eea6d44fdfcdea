"""Rules over the test part itself: labels that the answers contradict, equal images of two classes, images of train."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.findings.evidence import Evidence, Flags, Floats, Found, Integers, NotChecked

FEWEST: Final = 3
SMALLEST: Final = 0.01
"""Of all images: mistakes of a good model alone stay below."""
OF_MISTAKES: Final = 0.4
"""Of all mistakes: where labels are right, most mistakes are images on which the model is less sure than of others."""
MOST: Final = 0.1
"""Of all images: where more are contradicted, it is the model that is not to be believed."""
FAIR: Final = 0.5
"""Accuracy from which a model's answers may judge a label."""
OVERLAP: Final = 0.01
_AT_ONCE: Final = 4_000_000  # probabilities


def labels_suspect(evidence: Evidence) -> Found | NotChecked | None:
    """Images that the model gives another class with more confidence than that class's own images have on average.

    These are the off-diagonal counts of the confident joint (Northcutt, Jiang & Chuang 2021, confident learning). The model
    did not see them in training, so that its answers are out of sample.
    """
    if not evidence.finite.all():
        return NotChecked("some outputs are not finite")
    if evidence.evaluation.accuracy < FAIR:
        return NotChecked("the model is wrong too often to judge labels by its answers")
    suspect, own = confident_mistakes(evidence)
    errors = evidence.images - int(evidence.right.sum())
    found = np.flatnonzero(suspect)
    if (
        len(found) > MOST * evidence.images
        or len(found) < max(FEWEST, SMALLEST * evidence.images)
        or len(found) < OF_MISTAKES * errors
    ):
        return None
    found = found[np.argsort(own[found], kind="stable")]
    first = int(found[0])
    figures = {
        "images": len(found),
        "of": evidence.images,
        "errors": errors,
        "share": len(found) / evidence.images,
        "first": first,
        "first_own": float(own[first]),
    }
    return Found(
        "labels_suspect",
        float((suspect & ~evidence.right).sum() / evidence.images),
        figures,
        "example_images",
        classes=(int(evidence.labels[first]), int(evidence.predicted[first])),
        images=tuple(map(int, found)),
    )


def confident_mistakes(evidence: Evidence) -> tuple[Flags, Floats]:
    """Return which labels (N,) the answers contradict confidently, and the probability (N,) of each image's own label."""
    images, classes = evidence.images, evidence.classes
    step = max(1, _AT_ONCE // classes)
    parts = [np.arange(start, min(start + step, images)) for start in range(0, images, step)]
    sums, own = np.zeros(classes), np.empty(images)
    for part in parts:
        own[part] = np.take_along_axis(evidence.probabilities(part), evidence.labels[part, None], axis=1)[:, 0]
        sums += np.bincount(evidence.labels[part], weights=own[part], minlength=classes)
    mean = np.where(evidence.support > 0, sums / np.maximum(evidence.support, 1), np.inf)
    suspect = np.zeros(images, np.bool_)
    for part in parts:
        probabilities = evidence.probabilities(part)
        sure = np.where(probabilities >= mean, probabilities, -1.0)
        chosen = sure.argmax(axis=1)
        is_sure = np.take_along_axis(sure, chosen[:, None], axis=1)[:, 0] >= 0
        suspect[part] = is_sure & (chosen != evidence.labels[part])
    return suspect, own


def labels_conflict(evidence: Evidence) -> Found | None:
    """Test images that are equal to the last pixel, and have labels of several classes: no answer is right for both."""
    test = evidence.dataset.part("test")
    alike: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, seen in enumerate(digests(test.images)):
        alike[seen].append(place)
    groups = [one for one in alike.values() if len(np.unique(test.labels[one])) > 1]
    if not groups:
        return None
    images = [place for one in groups for place in one]
    lost = sum(len(one) - int(np.bincount(test.labels[one]).max()) for one in groups)
    figures = {"groups": len(groups), "images": len(images), "lost": lost, "of": evidence.images}
    return Found(
        "labels_conflict",
        lost / evidence.images,
        figures,
        "example_images",
        classes=(int(test.labels[groups[0][0]]), int(_another(test.labels, groups[0]))),
        images=tuple(images),
    )


def test_images_in_train(evidence: Evidence) -> Found | NotChecked | None:
    """Test images that are in the train part too, pixel by pixel: an accuracy over them tells what was learnt by heart."""
    if "train" not in evidence.dataset.parts:
        return NotChecked("the dataset has no train part")
    known = set(digests(evidence.dataset.part("train").images))
    shared = np.fromiter((one in known for one in digests(evidence.dataset.part("test").images)), np.bool_)
    if shared.mean() < OVERLAP:
        return None
    apart = float(evidence.right[~shared].mean()) if not shared.all() else float("nan")
    accuracy = float(evidence.right.mean())
    figures = {
        "images": int(shared.sum()),
        "of": evidence.images,
        "share": float(shared.mean()),
        "accuracy": accuracy,
        "accuracy_shared": float(evidence.right[shared].mean()),
    }
    if not shared.all():
        figures["accuracy_apart"] = apart
    cost = 0.0 if shared.all() else max(0.0, accuracy - apart)
    return Found("test_images_in_train", cost, figures, "evaluation", images=tuple(map(int, np.flatnonzero(shared))))


def digests(images: NDArray[np.uint8]) -> list[bytes]:
    """Return a digest of the pixels of each image (N, H, W, C)."""
    return [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in images]


def _another(labels: Integers, group: list[int]) -> int:
    return next(int(labels[one]) for one in group if labels[one] != labels[group[0]])
