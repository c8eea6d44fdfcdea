"""Networks whose weights NumPy draws, and an image: for what captum said of them to be recorded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.models import safe_form
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.datasets import DatasetDescription

CLASSES = 5
SIZE = 12
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.3, 0.2)


class Skipping(nn.Module):
    """Two convolutions with a shortcut, added and rectified in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        out = self.norm(self.conv(x))
        out += x
        return self.fc(self.relu(out).mean((2, 3)))


def plain(*end: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
        *end,
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 16), nn.Tanh(), nn.Linear(16, CLASSES))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "softmax": lambda: plain(nn.Softmax(1)),
    "skipping": Skipping,
    "perceptron": perceptron,
}


def drawn(name: str) -> nn.Module:
    """Return the network of this name with weights by NumPy, in eval mode."""
    random, model = np.random.default_rng(7), NETWORKS[name]()
    with torch.no_grad():
        for tensor in model.parameters():
            scale = 1 / np.sqrt(max(tensor[0].numel(), 1)) if tensor.ndim > 1 else 0.1
            tensor.copy_(torch.tensor(random.normal(0, scale, tensor.shape), dtype=torch.float32))
    return model.eval()


def safe(name: str) -> SafeModel:
    """Return it as it is stored."""
    return safe_form.build(safe_form.read(safe_form.pack(drawn(name))))


def image() -> np.ndarray:
    """Return one image uint8 (H, W, C)."""
    return np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def described() -> DatasetDescription:
    return DatasetDescription(
        name="squares",
        classes=tuple("abcde"),
        shape=(SIZE, SIZE, 3),
        mean=MEAN,
        std=STD,
        parts={"test": {"sha256": "0" * 64, "images": 1}},
    )
