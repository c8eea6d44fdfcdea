"""Rules over test images that are nearly the same as another one: within the test part, and in the train part."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.findings.evidence import Evidence, Floats, Found, NotChecked

SHARE: Final = 0.01
"""Of the test images that were looked at, so many have to be near another."""
NEAR: Final = 0.1
"""Of the median distance of two random images: the two nearest of some hundred digits are 0.15 of it apart."""
SMALLEST_DISTANCE: Final = 1.0
"""Levels of 255: where random images differ by less, all of them are alike, and none is a copy."""
FEWEST: Final = 50
SIDE: Final = 8
RANDOM_PAIRS: Final = 2_000
MOST_PAIRS: Final = 500_000_000
_AT_ONCE: Final = 8_000_000
_LUMA: Final = (0.2126, 0.7152, 0.0722)
_NONE: Final = 255


def near_duplicates(evidence: Evidence) -> Found | NotChecked | None:
    """Test images that hardly differ from another test image: what is right or wrong of one counts twice.

    Equal images of several classes are left to the rule that names them.
    """
    images, labels = evidence.dataset.part("test").images, evidence.labels
    if len(images) < FEWEST:
        return NotChecked(f"{len(images)} images are too few to tell what is near")
    looked, near, distance, typical = nearest(images, images, same=True)
    if typical < SMALLEST_DISTANCE:
        return NotChecked("all images are nearly the same")
    conflict = (distance == 0) & (labels[looked] != labels[near])
    found = (distance <= _bounds(images[looked], typical)) & ~conflict
    if found.mean() < SHARE:
        return None
    order = np.argsort(distance[found], kind="stable")
    shown, other = looked[found][order], near[found][order]
    figures = {
        "images": len(shown),
        "of": len(looked),
        "share": float(found.mean()),
        "first": int(shown[0]),
        "first_near": int(other[0]),
        "distance": float(distance[found].max() / typical),
    }
    return Found("near_duplicates", 0.0, figures, "example_images", images=tuple(map(int, shown)))


def near_duplicates_in_train(evidence: Evidence) -> Found | NotChecked | None:
    """Test images that hardly differ from a train image, but are not equal to it: accuracy over these was learnt by heart."""
    if "train" not in evidence.dataset.parts:
        return NotChecked("the dataset has no train part")
    test, train = evidence.dataset.part("test").images, evidence.dataset.part("train").images
    if min(len(test), len(train)) < FEWEST:
        return NotChecked("one of its parts has too few images to tell what is near")
    looked, near, distance, typical = nearest(test, train, same=False)
    if typical < SMALLEST_DISTANCE:
        return NotChecked("all images are nearly the same")
    found = (distance <= _bounds(test[looked], typical)) & (distance > 0)
    if found.mean() < SHARE:
        return None
    order = np.argsort(distance[found], kind="stable")
    shown, other = looked[found][order], near[found][order]
    accuracy, apart = float(evidence.right[looked].mean()), evidence.right[looked[~found]]
    figures = {
        "images": len(shown),
        "of": len(looked),
        "share": float(found.mean()),
        "first": int(shown[0]),
        "first_near": int(other[0]),
        "accuracy_near": float(evidence.right[shown].mean()),
        "accuracy": accuracy,
    }
    cost = 0.0
    if len(apart):
        figures["accuracy_apart"] = float(apart.mean())
        cost = max(0.0, accuracy - float(apart.mean()))
    return Found("near_duplicates_in_train", cost, figures, "evaluation", images=tuple(map(int, shown)))


def nearest(
    images: NDArray[np.uint8], others: NDArray[np.uint8], *, same: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, float]:
    """Return which images (n,) were looked at, for each the other one of the nearest hash, and how far apart the two are.

    Distances are root mean squares over pixels, 0..255; the last number is the median of those of random pairs. `same`: the
    others are the same images, none of which is its own neighbour. Where there are too many pairs, every k-th image is
    looked at.
    """
    step = max(1, -(-len(images) * len(others) // MOST_PAIRS))
    looked = np.arange(0, len(images), step)
    of_others = hashes(others)
    of_images = of_others[looked] if same else hashes(images[looked])
    near = np.empty(len(looked), np.int64)
    rows = max(1, _AT_ONCE // len(others))
    for start in range(0, len(looked), rows):
        some = slice(start, start + rows)
        apart = np.zeros((len(of_images[some]), len(others)), np.uint8)
        for word in range(of_others.shape[1]):
            apart += np.bitwise_count(of_images[some, word, None] ^ of_others[None, :, word])
        if same:
            apart[np.arange(len(apart)), looked[some]] = _NONE
        near[some] = apart.argmin(axis=1)
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(images), RANDOM_PAIRS), random.integers(0, len(others), RANDOM_PAIRS)
    typical = float(np.median(_distances(images[drawn[0]], others[drawn[1]])))
    return looked, near, _distances(images[looked], others[near]), typical


def hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return dHash of each image (N, H, W, C), across and down: two words of 64 bits, (N, 2).

    A bit tells whether one of 8 x 8 steps from a mean over an area to the next is upwards (Krawetz 2013, "Kind of Like That",
    The Hacker Factor Blog): it stays as it is where brightness, contrast or compression change, or little noise is added.
    """
    height, width = images.shape[1:3]
    across, down = (_areas(height, SIDE), _areas(width, SIDE + 1)), (_areas(height, SIDE + 1), _areas(width, SIDE))
    words = np.empty((len(images), 2), np.uint64)
    rows = max(1, _AT_ONCE // max(1, height * width))
    for start in range(0, len(images), rows):
        some = images[start : start + rows].astype(np.float32)
        grey = some @ np.array(_LUMA, np.float32) if some.shape[3] == 3 else some.mean(axis=3)
        for word, (axis, (tall, wide)) in enumerate(((2, across), (1, down))):
            steps = np.diff(tall @ grey @ wide.T, axis=axis) > 0
            packed: NDArray[np.uint8] = np.packbits(steps.reshape(len(some), -1), axis=1)
            words[start : start + rows, word] = packed.view(np.uint64)[:, 0]
    return words


def _areas(pixels: int, areas: int) -> NDArray[np.float32]:
    """Return what averages a line of pixels over equal areas, (areas, pixels); an area may have parts of pixels."""
    edges = np.linspace(0, pixels, areas + 1)
    low, high = edges[:-1, None], edges[1:, None]
    covered = np.clip(np.minimum(high, np.arange(1, pixels + 1)) - np.maximum(low, np.arange(pixels)), 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True), np.float32)


def _bounds(images: NDArray[np.uint8], typical: float) -> Floats:
    """Return within what distance each image (N, H, W, C) is a copy: two that have little contrast differ little anyway."""
    rows = max(1, _AT_ONCE // max(1, images[0].size))
    parts = (images[start : start + rows].std(axis=(1, 2, 3)) for start in range(0, len(images), rows))
    return np.asarray(NEAR * np.minimum(typical, np.sqrt(2) * np.concatenate(list(parts))))


def _distances(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> Floats:
    found = np.empty(len(images))
    rows = max(1, _AT_ONCE // max(1, images[0].size))
    for start in range(0, len(images), rows):
        some = slice(start, start + rows)
        apart = images[some].astype(np.float32) - others[some].astype(np.float32)
        found[some] = np.sqrt((apart**2).mean(axis=(1, 2, 3), dtype=np.float64))
    return found
