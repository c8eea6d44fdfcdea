"""Which test images the model's own features have near a picture."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis import costs
from layerscope.functions.analysis.searched_images import FEWEST_IMAGES, SearchedImages, affordable_images, distances
from layerscope.functions.inference.call import Near, NearImage
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.errors import Refused

K: Final = 5
MULTIPLY_ADDS: Final = {"cpu": 40_000_000_000}
"""Of all searched images together: some two seconds of one core."""
MULTIPLY_ADDS_ELSEWHERE: Final = 4_000_000_000_000


def searched(model: SafeModel, device: str, images: int, shape: tuple[int, int, int]) -> int:
    """Return how many of so many test images may be searched, from what one costs."""
    height, width, channels = shape
    try:
        one = costs.measure(model, (channels, height, width)).multiply_adds
    except Refused:
        return min(FEWEST_IMAGES, images)  # it runs, and what it costs is not known beforehand
    return affordable_images(images, MULTIPLY_ADDS.get(device, MULTIPLY_ADDS_ELSEWHERE), one)


def nearest(tests: SearchedImages, rows: NDArray[np.float32] | None, k: int = K) -> Near:
    """Return the `k` test images whose features are nearest to the first of these rows; of equals the first."""
    reason = tests.reason
    if reason is None and (rows is None or not np.isfinite(rows[0]).all()):
        reason = f"The input of {tests.layer} is not finite for this picture."
    if reason is not None or rows is None:
        return Near(layer=tests.layer, reason=reason)
    found = distances(tests.rows, rows[0])
    order = np.argsort(found, kind="stable")[:k]
    images = tuple(
        NearImage(int(tests.indices[one]), float(found[one]), int(tests.labels[one]), int(tests.predicted[one]))
        for one in order
        if np.isfinite(found[one])
    )
    return Near(tests.layer, tests.rows.shape[1], len(tests.rows), images)
