"""Digits, and small networks trained on them: 0.97 of the test images and more are right."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from layerscope.datasets.digits import CLASSES, digits
from layerscope.functions.analysis.inference import normalised
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores.datasets import Dataset, channel_statistics

EPOCHS, BATCH, RATE = 5, 32, 6e-3


def digits_dataset() -> Dataset:
    """Return all parts of `digits`, normalised by the statistics of its train part."""
    parts = digits()
    mean, std = channel_statistics(parts["train"].images)
    described = DatasetDescription(
        name="digits",
        classes=CLASSES,
        shape=(28, 28, 1),
        mean=mean,
        std=std,
        parts={name: {"sha256": "0" * 64, "images": len(part)} for name, part in parts.items()},
    )
    return Dataset(described, parts)


def safe(model: nn.Module) -> safe_form.SafeModel:
    """Return the model as functions are given it."""
    return safe_form.build(safe_form.read(safe_form.pack(model.eval())))


def three_convolutions() -> nn.Module:
    """Return the plain classifier: convolution, batch norm and ReLU, three times, and a linear layer."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 10))


def averaged() -> nn.Module:
    """Return three convolutions whose last channels are averaged over positions: of where they saw what, it keeps nothing."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.AdaptiveAvgPool2d(1) if width == 64 else nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))


def strided() -> nn.Module:
    """Return three strided convolutions with batch norm."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (8, 16, 32):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, 10))


def wide_kernels() -> nn.Module:
    """Return two convolutions of 5 x 5 without a norm, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(12, 24, 5, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 49, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def perceptron() -> nn.Module:
    """Return a network without convolutions."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def trained(make: Callable[[], nn.Module], seed: int, dataset: Dataset) -> nn.Module:
    """Return the network after some epochs of AdamW under a one-cycle schedule (Smith & Topin 2019)."""
    torch.manual_seed(seed)
    model, train = make(), dataset.part("train")
    images, labels = normalised(train.images, dataset.description, "cpu"), torch.tensor(train.labels)
    optimiser = torch.optim.AdamW(model.parameters())
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()
