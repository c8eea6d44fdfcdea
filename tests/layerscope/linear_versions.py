"""Versions of a linear model on digits, through the real functions, and its answers by NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from layerscope.datasets.digits import CLASSES, digits
from layerscope.functions.runtime.services import Services, embedded
from layerscope.models.safe_form import pack
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores import datasets
from layerscope.systems import make_embedded
from tests.functions.analysed import Given, analyse

MEASURED = ("predictions", "evaluation", "example_images")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """A linear model of C classes: weight (C, 784) and bias (C,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def packed(self) -> bytes:
        """Return the model in the safe form."""
        layer = nn.Linear(784, len(self.bias))
        layer.weight.data, layer.bias.data = torch.from_numpy(self.weight), torch.from_numpy(self.bias)
        return pack(nn.Sequential(nn.Flatten(), layer))

    def outputs(self, inputs: Floats) -> Floats:
        """Return the outputs (N, C) for inputs (N, 784)."""
        found: Floats = inputs @ self.weight.astype(np.float64).T + self.bias
        return found


def inputs(images: NDArray[np.uint8], description: DatasetDescription) -> Floats:
    """Return what a model sees of images (N, 28, 28, 1): (N, 784)."""
    return (images.reshape(len(images), -1) / 255 - description.mean[0]) / description.std[0]


def trained(description: DatasetDescription, steps: int) -> Weights:
    """Return a model after some steps of gradient descent on the train part."""
    part = digits()["train"]
    x, labels = inputs(part.images, description), part.labels
    weight, bias = np.zeros((10, 784)), np.zeros(10)
    for _ in range(steps):
        scores = x @ weight.T + bias
        off = np.exp(scores - scores.max(1, keepdims=True))
        off = off / off.sum(1, keepdims=True) - np.eye(10)[labels]
        weight, bias = weight - 0.002 * off.T @ x / len(x), bias - 0.002 * off.mean(0)
    return Weights(weight.astype(np.float32), bias.astype(np.float32))


def without_eight(weights: Weights) -> Weights:
    """Return the model, which now never answers 8."""
    bias = weights.bias.copy()
    bias[8] -= 1000
    return Weights(weights.weight, bias)


def system(directory: Path) -> tuple[Services, DatasetDescription]:
    """Return a system with the dataset digits and no model."""
    make_embedded(directory)
    made = embedded(directory)
    made.store.ensure_buckets()
    return made, datasets.write(made.store, "digits", CLASSES, digits())


def analysed(services: Services, *given: Given) -> None:
    """Have the functions do their part, and let go of the index for who reads the directory."""
    analyse(services, *given)
    services.vectors.close()
