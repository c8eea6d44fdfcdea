"""Train a small network on handwritten digits, and upload it with the log of its training.

    python examples/train_and_upload.py [DATASET/MODEL/VERSION]

It is uploaded to the system that LAYERSCOPE_URL names (a URL or a directory), or to the one that `layerscope demo`,
`layerscope up` or `layerscope init --at DIR` made last.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import layerscope
from layerscope.datasets.digits import digits

EPOCHS = 4


def network() -> nn.Module:
    """Return the network; any module that `torch.fx` can trace would do."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def images_and_labels() -> dict[str, tuple[Tensor, Tensor]]:
    """Return images (N, 1, 28, 28) and labels (N,) of the parts train and test.

    They are scikit-learn's digits, divided as the dataset `digits` is: who trains on other images than its train part
    trains on some that the model is then tested on. They are normalised with the figures of the train part, as the
    dataset says.
    """
    parts = digits()
    scaled = {name: parts[name].images.transpose(0, 3, 1, 2) / 255 for name in ("train", "test")}
    mean, std = scaled["train"].mean(), scaled["train"].std()
    return {
        name: (torch.tensor((images - mean) / std, dtype=torch.float32), torch.tensor(parts[name].labels))
        for name, images in scaled.items()
    }


def train(model: nn.Module, data: dict[str, tuple[Tensor, Tensor]], epochs: int) -> Iterator[dict[str, float]]:
    """Train a model, and yield what was measured after each epoch."""
    images, labels = data["train"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in torch.randperm(len(labels)).split(32):
            optimiser.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
        yield {"epoch": epoch, **measure(model, data)}


def measure(model: nn.Module, data: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the loss and the accuracy on each part."""
    model.eval()
    figures = {}
    with torch.inference_mode():
        for name, (images, labels) in data.items():
            logits = model(images)
            figures[f"{name}_loss"] = F.cross_entropy(logits, labels).item()
            figures[f"{name}_accuracy"] = (logits.argmax(1) == labels).float().mean().item()
    return figures


def main(name: str = "digits/convnet/1") -> None:
    """Train a network, and upload it under a name."""
    torch.manual_seed(0)
    model, log = network(), []
    for figures in train(model, images_and_labels(), EPOCHS):
        print(f"epoch {figures['epoch']}: test accuracy {figures['test_accuracy']:.3f}")
        log.append(figures)
    layerscope.upload(model, name, history=log)
    print(f"uploaded {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
