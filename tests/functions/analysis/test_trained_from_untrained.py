"""What layer vectors are for: the layer most like a trained one is another trained one, not chance structure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerscope.datasets.digits import CLASSES, digits
from layerscope.functions.layer_vectors.func import compute
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores.datasets import Dataset

EPOCHS = 6


def plain() -> nn.Module:
    """Return three convolutions with batch norm, pooled over the whole image."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if after < 64 else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def residual() -> nn.Module:
    """Return a stem, two residual blocks and a linear layer."""
    stem = nn.Conv2d(1, 24, 3, stride=2, padding=1)
    return nn.Sequential(stem, nn.ReLU(), Block(24), nn.MaxPool2d(2), Block(24), nn.Flatten(), nn.Linear(24 * 49, 10))


def lenet() -> nn.Module:
    """Return LeNet-5, with tanh and without batch norm."""
    convolutions = [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh()]
    head = [nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, nn.AvgPool2d(2), nn.Flatten(), *head)


def network(make: Callable[[], nn.Module], seed: int, batch: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Return a network trained for some epochs; the seed decides its weights and the order of the images."""
    torch.manual_seed(seed)
    model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for some in torch.randperm(len(labels)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(batch[some]), labels[some]).backward()
            optimiser.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_layer_most_like_a_trained_one_is_trained_too_nine_times_in_ten() -> None:
    parts = digits()
    described = DatasetDescription(
        name="digits",
        classes=CLASSES,
        shape=(28, 28, 1),
        mean=(0.3,),
        std=(0.35,),
        parts={name: {"sha256": "0" * 64, "images": len(part)} for name, part in parts.items()},
    )
    train = parts["train"]
    batch = torch.tensor((train.images[:, None, :, :, 0] / np.float32(255) - 0.3) / 0.35, dtype=torch.float32)
    labels = torch.tensor(train.labels)
    vectors, models, trained, input_like = [], [], [], []
    # Three kinds of networks, six seeds of each, and as many that were never trained.
    for seed in range(1, 7):
        for kind in (plain, residual, lenet):
            for epochs in (EPOCHS, 0):
                model = network(kind, seed if epochs else seed + 100, batch, labels, epochs)
                product = compute(model=model, dataset=Dataset(described, parts), device="cpu")
                vectors.append(product.deconfounded)
                models += [(kind, seed, epochs)] * len(product.layers)
                trained += [epochs > 0] * len(product.layers)
                input_like += [layer.input_like for layer in product.layers]
    found = np.concatenate(vectors)
    scores = found @ found.T
    same = np.array([[one == other for other in models] for one in models])
    scores[same | np.array(input_like)] = -np.inf
    asked = np.flatnonzero(np.array(trained) & ~np.array(input_like))
    right = np.array(trained)[scores[asked].argmax(axis=1)]
    print(
        f"{right.sum()} of {len(right)} best hits are trained; {sum(input_like)} of {len(models)} layers are input-like"
    )
    assert len(right) >= 60
    assert right.mean() >= 0.9
