"""Frozen baseline: layer vectors by the classic recipe. Not to be made faster.

Images one by one, every response kept, features joined in float64, `H @ X @ X.T @ H` as it is written in textbooks; then
the same packing, so that its vectors and ours can be compared.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def classic_layer_vectors(model: nn.Module, batch: Tensor) -> dict[str, np.ndarray]:
    """Return the debiased unit vector of each convolution and linear layer, over images (n, C, H, W)."""
    responses: dict[str, list[np.ndarray]] = {}

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            responses.setdefault(name, []).append(output.detach().clone().numpy())

        return hook

    layers = [(name, one) for name, one in model.named_modules() if isinstance(one, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers]
    with torch.no_grad():
        for image in batch:
            model(image[None])
    for handle in handles:
        handle.remove()
    return {name: _packed(np.concatenate(rows).reshape(len(batch), -1)) for name, rows in responses.items()}


def _packed(features: np.ndarray) -> np.ndarray:
    n = len(features)
    x = features.astype(np.float64)
    h = np.eye(n) - np.ones((n, n)) / n
    k = h @ x @ x.T @ h
    np.fill_diagonal(k, 0)
    rows = k.sum(1)
    u = k - (rows[:, None] + rows) / (n - 2) + k.sum() / ((n - 1) * (n - 2))
    vector = u[np.triu_indices(n, 1)]
    return vector / np.linalg.norm(vector)
