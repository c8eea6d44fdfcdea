"""Frozen baseline: predictions by a `DataLoader` that hands out one image at a time. Not to be made faster."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Images(Dataset[Tensor]):
    """uint8 images (N, H, W, 1), scaled and normalised one by one."""

    def __init__(self, images: np.ndarray, mean: float, std: float) -> None:
        self._images, self._mean, self._std = images, mean, std

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        image = torch.tensor(self._images[index]).permute(2, 0, 1).float() / 255
        return (image - self._mean) / self._std


def classic_predictions(model: nn.Module, images: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Return the outputs (N, classes)."""
    outputs = []
    with torch.no_grad():
        for batch in DataLoader(Images(images, mean, std), batch_size=1):
            outputs.append(model(batch).numpy())
    return np.concatenate(outputs)
