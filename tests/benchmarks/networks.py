"""What is measured on: networks and images that are the same in every run."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import nn

from layerscope.schemas.datasets import DatasetDescription, PartName
from layerscope.stores.datasets import Dataset, PartArrays

MEAN, STD = 0.45, 0.25


def resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 with random weights."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


def digits_cnn() -> nn.Module:
    """Return three times convolution, batch norm and ReLU, for images of 28 x 28."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 1
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 10)).eval()


def blobs(part: PartName, count: int, size: int, channels: int) -> Dataset:
    """Return smooth random images, ten classes in turn."""
    random = np.random.default_rng(0)
    coarse = torch.tensor(random.random((count, channels, 6, 6)))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1).mul(255)
    images = smooth.permute(0, 2, 3, 1).contiguous().numpy().astype(np.uint8)
    description = DatasetDescription(
        name="blobs",
        classes=tuple("0123456789"),
        shape=(size, size, channels),
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        parts={part: {"sha256": "0" * 64, "images": count}},
    )
    return Dataset(description, {part: PartArrays(images, np.arange(count) % 10)})
