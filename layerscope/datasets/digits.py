"""The dataset `digits`, which every installation has: scikit-learn's 1,797 handwritten digits, enlarged to 28 × 28.

The images are those of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998). Everything
here is integers, so each machine makes the same bytes, and models of different machines are compared on them.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.datasets import PartName
from layerscope.stores.datasets import PartArrays

CLASSES: Final = tuple(str(digit) for digit in range(10))
SOURCE: Final = "scikit-learn load_digits, 8 × 8 enlarged bilinearly to 28 × 28"
SIZE: Final = 28
PROBE_PER_CLASS: Final = 10
TEST_PER_CLASS: Final = 55


def digits() -> dict[PartName, PartArrays]:
    """Return train (1,147 images), test (550, 55 a class) and probe (100, 10 a class); no image is in two of them."""
    from sklearn.datasets import load_digits  # takes a second, and is needed once

    pixels, labels = load_digits(return_X_y=True)
    images = enlarge(pixels.reshape(-1, 8, 8).astype(np.int64))
    everything = PartArrays(images[..., None], labels.astype(np.int64))
    return {part: everything.take(positions) for part, positions in _split(everything.labels).items()}


def enlarge(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Enlarge (N, 8, 8) of 0..16 to (N, 28, 28) of 0..255: bilinear, pixel centres aligned, rounded half up."""
    weights = np.zeros((SIZE, 8), np.int64)
    for row in range(SIZE):
        # In fourteenths of a source pixel, the centre of row r is (r + 1/2) · 8/28 - 1/2.
        below, part = divmod(4 * row - 5, 14)
        weights[row, max(below, 0)] += 14 - part
        weights[row, min(below + 1, 7)] += part
    whole = 14 * 14 * 16
    return ((weights @ images @ weights.T * 255 + whole // 2) // whole).astype(np.uint8)


def _split(labels: NDArray[np.int64]) -> dict[PartName, NDArray[np.int64]]:
    """Deal the images of each class out in the order of a hash, which does not change as generators of numbers may."""
    chosen: dict[PartName, list[int]] = {"probe": [], "test": [], "train": []}
    for label in range(10):
        order = sorted(np.flatnonzero(labels == label).tolist(), key=_shuffled)
        chosen["probe"] += order[:PROBE_PER_CLASS]
        chosen["test"] += order[PROBE_PER_CLASS : PROBE_PER_CLASS + TEST_PER_CLASS]
        chosen["train"] += order[PROBE_PER_CLASS + TEST_PER_CLASS :]
    return {part: np.sort(np.array(positions, np.int64)) for part, positions in chosen.items()}


def _shuffled(position: int) -> bytes:
    return hashlib.sha256(b"digits %d" % position).digest()
