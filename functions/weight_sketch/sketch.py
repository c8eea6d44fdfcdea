"""The sketch of one tensor: a short vector whose distances are about those of the tensors. NumPy alone.

CountSketch (Charikar, Chen and Farach-Colton 2002): each number is added, with a sign, to one of k places, both drawn
from its position. Sums and differences of sketches are sketches of sums and differences, and the expected square of a
sketch's length is that of the tensor, with a relative standard deviation of at most sqrt(2 / k) (Weinberger et al. 2009).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

CHUNK: Final = 1 << 20  # numbers at a time: 8 MB of random bits
_NOTHING: Final = 1e-6
_LARGEST: Final = 1e30  # of a norm: sums of such numbers are still finite as float32

Matrix = NDArray[np.float64]
Sketch = NDArray[np.float64]


def centred(tensor: NDArray[np.float32]) -> Matrix | None:
    """Return a tensor as a matrix (first axis, all others) without the means of its rows and columns.

    Networks that were trained independently on the same images share these means: what every unit of a layer takes from
    one input, what all of a unit's inputs give to it. None where nothing else is left, or not all is finite.
    """
    matrix = tensor.reshape(len(tensor), -1).astype(np.float64)
    if not np.isfinite(matrix).all():
        return None
    size = float(np.linalg.norm(matrix))
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix -= matrix.mean(axis=0, keepdims=True)
    return matrix if _NOTHING * size < float(np.linalg.norm(matrix)) < _LARGEST else None


def sketched(matrix: Matrix, numbers: int, seed: int) -> Sketch:
    """Return the sketch (numbers,) of a matrix; `numbers` is a power of two.

    Which place and sign a position has depends on the seed and on the number of positions alone. They come from the raw
    bits of PCG64, which NumPy promises to leave as they are; those of its distributions may change (NEP 19).
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, matrix.size]))
    flat, sums = matrix.reshape(-1), np.zeros(numbers)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        drawn = bits.random_raw(part.size)
        places = (drawn & np.uint64(numbers - 1)).astype(np.intp)
        signs = 1.0 - 2.0 * (drawn >> np.uint64(63)).astype(np.float64)
        sums += np.bincount(places, signs * part, minlength=numbers)
    return sums
