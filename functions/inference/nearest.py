"""Which test images the model's own features have near a picture."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.searched_images import FEWEST_IMAGES, SearchedImages, affordable_images, distances
from layerscope.functions.inference.call import Near, NearImage
from layerscope.models.safe_form import SafeModel, costs
from layerscope.schemas.errors import Refused

K: Final = 5
MULTIPLY_ADDS: Final = {"cpu": 40_000_000_000}
"""Of all searched images together: some two seconds of one core."""
MULTIPLY_ADDS_ELSEWHERE: Final = 4_000_000_000_000


def cost_of_one(model: SafeModel, shape: tuple[int, int, int]) -> int | None:
    """Return the multiply-adds of a forward pass for one image (H, W, C); None: it runs, and nobody knows beforehand."""
    height, width, channels = shape
    try:
        return costs.measure(model, (channels, height, width)).multiply_adds
    except Refused:
        return None


def searched(one: int | None, device: str, images: int) -> int:
    """Return how many of so many test images may be searched, from what one costs."""
    if one is None:
        return min(FEWEST_IMAGES, images)
    return affordable_images(images, MULTIPLY_ADDS.get(device, MULTIPLY_ADDS_ELSEWHERE), one)


def nearest(tests: SearchedImages, rows: NDArray[np.float32] | None, k: int = K, *, without: int | None = None) -> Near:
    """Return the `k` test images whose features are nearest to the first of these rows; of equals the first.

    `without` is the position of an image that is left out, as itself is nearest to it.
    """
    reason = tests.reason
    if reason is None and (rows is None or not np.isfinite(rows[0]).all()):
        reason = f"The input of {tests.layer} is not finite for this picture."
    if reason is not None or rows is None:
        return Near(layer=tests.layer, reason=reason)
    found = distances(tests.rows, rows[0])
    found[tests.indices == without] = np.inf
    order = np.argsort(found, kind="stable")[:k]
    images = tuple(
        NearImage(int(tests.indices[one]), float(found[one]), int(tests.labels[one]), int(tests.predicted[one]))
        for one in order
        if np.isfinite(found[one])
    )
    return Near(tests.layer, tests.rows.shape[1], len(tests.rows), images)
