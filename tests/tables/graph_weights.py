"""Weights and images that names and shapes decide, so that who records and who tests make the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return tensors of these names and shapes: small matrices, scales about 1, variances above 0, counters 0."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        drawn = np.abs(drawn) + 0.5
    elif len(shape) >= 2:
        drawn /= max(1.0, float(np.prod(shape[1:]))) ** 0.5
    else:
        drawn = 0.1 * drawn + (1.0 if name.endswith("weight") else 0.0)
    return torch.from_numpy(np.ascontiguousarray(drawn, np.float32))


def images(shape: Sequence[int]) -> Tensor:
    """Return two images of a shape."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32))
