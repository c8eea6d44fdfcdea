"""Rule over kinds of images: darker, paler, more blurred or less coloured ones that are right less often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.findings.evidence import Evidence, Floats, Found, NotChecked

BINS: Final = 5
FEWEST: Final = 100
LOWER: Final = 0.05
SMALLEST_COST: Final = 0.005
UNLIKELY: Final = 0.001
_LUMA: Final = (0.2126, 0.7152, 0.0722)
_AT_ONCE: Final = 2_000


def weak_segment(evidence: Evidence) -> Found | NotChecked | None:
    """A fifth of the images, by brightness, contrast, sharpness or colour, that is right less often than others of its classes.

    Each image is expected to be right as often as all images of its own class are, since the classes themselves differ in
    brightness; the sum's variance is that of independent images. Every fifth of every property is tried, and the bar raised
    as often (Bonferroni).
    """
    if evidence.images < FEWEST:
        return NotChecked(f"{evidence.images} images are too few to divide")
    from scipy.stats import norm

    found: list[tuple[float, Found]] = []
    measured = properties(evidence.dataset.part("test").images)
    recall = (evidence.counts.diagonal() / np.maximum(evidence.support, 1))[evidence.labels]
    bar = float(norm.isf(UNLIKELY / (BINS * len(measured))))
    for name, values in measured.items():
        edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
        place = np.searchsorted(edges, values, side="right")
        for fifth in range(BINS):
            inside = place == fifth
            if not 0 < inside.sum() < evidence.images:
                continue
            expected = recall[inside]
            right, likely = int(evidence.right[inside].sum()), float(expected.sum())
            deviation = float(np.sqrt((expected * (1 - expected)).sum()))
            lower, cost = (likely - right) / inside.sum(), (likely - right) / evidence.images
            if lower < LOWER or cost < SMALLEST_COST or likely - right < bar * deviation:
                continue
            figures = {
                "images": int(inside.sum()),
                "accuracy": right / int(inside.sum()),
                "expected": likely / int(inside.sum()),
                "fifth": fifth + 1,
                "low": float(values[inside].min()),
                "high": float(values[inside].max()),
            }
            wrong = np.flatnonzero(inside & ~evidence.right)
            side = "least" if fifth == 0 else "most" if fifth == BINS - 1 else "middle"
            segment = Found(
                "weak_segment", cost, figures, "example_images", images=tuple(map(int, wrong)), way=side, property=name
            )
            found.append((cost, segment))
    return max(found, key=lambda one: one[0])[1] if found else None


def properties(images: NDArray[np.uint8]) -> Mapping[str, Floats]:
    """Return figures of each image (N, H, W, C), (N,): mean, deviation and mean step of its luminance, 0..1, and its colour.

    Colour is the mean distance between the strongest and the weakest channel; grey images have none, and no such figure.
    """
    columns: list[tuple[Floats, ...]] = []
    for start in range(0, len(images), _AT_ONCE):
        some = images[start : start + _AT_ONCE].astype(np.float32) / 255
        grey = some @ np.array(_LUMA, np.float32) if some.shape[3] == 3 else some.mean(axis=3)
        steps = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) if grey.shape[1] > 1 else np.zeros(len(grey))
        steps = steps + (np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)) if grey.shape[2] > 1 else 0)
        colour = (some.max(axis=3) - some.min(axis=3)).mean(axis=(1, 2))
        columns.append((grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), steps, colour))
    names = ("brightness", "contrast", "sharpness", "colour")
    joined = {name: np.concatenate([one[k] for one in columns]).astype(np.float64) for k, name in enumerate(names)}
    return {name: values for name, values in joined.items() if np.ptp(values) > 0}
