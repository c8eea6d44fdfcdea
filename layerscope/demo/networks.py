"""The networks of `layerscope demo`: small classifiers of digits, trained here and now, and the same each time.

They are written as people write networks; nothing in them knows of Layerscope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores.datasets import PartArrays

EPOCHS = 6
BATCH = 32


def plain() -> nn.Module:
    """Return three convolutions and a linear layer, in a row."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class Block(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class Residual(nn.Module):
    """A stem, two residual blocks and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, stride=2, padding=1)
        self.block1 = Block(24)
        self.block2 = Block(24)
        self.head = nn.Linear(24 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) to logits (N, 10)."""
        x = self.block1(F.relu(self.stem(x)))
        x = self.block2(F.max_pool2d(x, 2))
        return self.head(x.view(x.size(0), -1))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Network:
    """One of the demo's models: its name and version, what it is, and whether it is trained."""

    name: str
    version: str
    make: Callable[[], nn.Module]
    seed: int
    epochs: int = EPOCHS


NETWORKS = (
    Network("plain", "1", plain, seed=1),
    Network("plain", "2", plain, seed=2),
    Network("residual", "1", Residual, seed=1),
    Network("untrained", "1", plain, seed=3, epochs=0),
)


def train(network: Network, part: PartArrays, description: DatasetDescription) -> Iterator[tuple[int, nn.Module]]:
    """Train a network and yield it after each epoch (at least once); the seed decides every weight.

    Args:
        part: images uint8 (N, H, W, C) and labels int64 (N,).
    """
    torch.manual_seed(network.seed)
    model = network.make()
    images = torch.from_numpy(_normalised(part.images, description))
    labels = torch.tensor(part.labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    yield 0, model.eval()
    for epoch in range(1, network.epochs + 1):
        model.train()
        for batch in torch.split(torch.randperm(len(labels)), BATCH):
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(images[batch]), labels[batch]))
            optimiser.step()
        yield epoch, model.eval()


def measure(model: nn.Module, part: PartArrays, description: DatasetDescription) -> tuple[float, float]:
    """Return the mean cross-entropy of a model over a part, and its accuracy."""
    labels = torch.tensor(part.labels)
    with torch.inference_mode():
        logits = model(torch.from_numpy(_normalised(part.images, description)))
        return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def _normalised(images: NDArray[np.uint8], description: DatasetDescription) -> NDArray[np.float32]:
    """Return what a model sees of (N, H, W, C): (N, C, H, W)."""
    scaled = (images / 255 - np.array(description.mean)) / np.array(description.std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)
