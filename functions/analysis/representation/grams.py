"""Gram matrices: for one layer, how alike its responses to any two of the probe images are."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from layerscope.functions.analysis.representation.vectors import Gram

# 100 rows of 16 Ki float32 are 6.5 MB: what is centred is still in the cache when it is multiplied.
CHUNK: Final = 16_384


def gram(features: Tensor) -> Gram:
    """Return the Gram of features (n, p), one row an image, with their mean taken out.

    Columns are centred before they are multiplied: centring the Gram of raw features instead loses as many digits as
    their common offset is large. Products are float32, chunk by chunk over the features, and their sum is float64.
    """
    n = len(features)
    total = torch.zeros(n, n, dtype=torch.float64, device=features.device)
    offset = torch.zeros((), dtype=torch.float64, device=features.device)
    for columns in torch.split(features, CHUNK, dim=1):
        mean = columns.mean(dim=0)
        centred = (columns - mean).float()
        total += _outer(centred)
        offset += mean.double().square().sum()
    total -= total.mean(dim=0)  # what rounding the mean to float32 left
    total -= total.mean(dim=1, keepdim=True)
    total = (total + total.T) / 2
    energy = total.trace() + n * offset
    return Gram(total.cpu().numpy(), float(energy))


def _outer(rows: Tensor) -> Tensor:
    """Return `rows @ rows.T` in float32."""
    if rows.device.type != "cpu":
        return rows @ rows.T
    array = rows.numpy()
    return torch.from_numpy(array @ array.T)  # NumPy sees that both are one matrix, and computes half of the product
