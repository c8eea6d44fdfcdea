"""Writes one small model in every form that torch saves; runs under the torch of its environment, Python 3.8 or later.

python write.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions with a shortcut, added in place."""

    def __init__(self, channels_in, channels, stride=1):  # type: ignore[no-untyped-def]
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None if stride == 1 else nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x):  # type: ignore[no-untyped-def]
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    """A network of one's own: blocks, branches, tensors of its own, dropout as layer and as function."""

    def __init__(self):  # type: ignore[no-untyped-def]
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1, 1, 1))
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layers = nn.Sequential(Block(4, 4), Block(4, 8, 2))
        self.branches = nn.ModuleList([nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 3, padding=1)])
        self.drop = nn.Dropout(0.3)
        self.fc1 = nn.Linear(96, 12)
        self.fc2 = nn.Linear(12, 10)

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.layers(self.stem(x - self.mean) * self.scale)
        x = torch.cat([branch(x) for branch in self.branches], 1)
        x = functional.max_pool2d(functional.relu(x), 2)
        x = self.drop(x.view(x.size(0), -1)[:, :96])
        x = functional.dropout(torch.tanh(self.fc1(x)), 0.2, self.training)
        return functional.log_softmax(self.fc2(x), dim=1)


def wide():  # type: ignore[no-untyped-def]
    """Return a nested Sequential of many kinds of layer, for 1×16×16."""
    return nn.Sequential(
        nn.ZeroPad2d(1),
        nn.Conv2d(1, 4, 3, padding_mode="reflect", padding=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1),
        nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.GroupNorm(2, 6),
        nn.ELU(),
        nn.ConvTranspose2d(6, 4, 2, 2, bias=False),
        nn.Sequential(
            nn.MaxPool2d(3, 2, 1), nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.PReLU(4)), nn.Dropout2d()
        ),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.SELU(),
        nn.GELU(),
        nn.AdaptiveAvgPool2d((4, 4)),
        nn.Softplus(),
        nn.AdaptiveMaxPool2d(3),
        nn.Flatten(),
        nn.Linear(36, 12),
        nn.BatchNorm1d(12),
        nn.Tanh(),
        nn.LayerNorm(12),
        nn.ReLU(inplace=True),
        nn.Dropout(0.25),
        nn.Linear(12, 10),
        nn.Sigmoid(),
        nn.Identity(),
        nn.LogSoftmax(dim=1),
    )


BLOCKS: list = [
    {"type": "Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 3, "padding": 1},
    {"type": "BatchNorm2d", "num_features": 4},
    {"type": "ReLU"},
    {"type": "MaxPool2d", "kernel_size": 2},
    {"type": "Conv2d", "in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "bias": False},
    {"type": "PReLU"},
    {"type": "Flatten"},
    {"type": "Dropout", "p": 0.5},
    {"type": "Linear", "in_features": 54, "out_features": 10},
]


def of_blocks():  # type: ignore[no-untyped-def]
    """Return the plain Sequential that `BLOCKS` describes."""
    blocks = [dict(block) for block in BLOCKS]
    return nn.Sequential(*(getattr(nn, block.pop("type"))(**block) for block in blocks))


def filled(model, seed):  # type: ignore[no-untyped-def]
    """Give every tensor values that NumPy drew, the same under every version of torch."""
    random = np.random.RandomState(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.dtype.is_floating_point:
            continue
        values = random.standard_normal(tuple(tensor.shape))
        if name.endswith("running_var"):
            values = 0.5 + values**2
        elif tensor.dim() > 1:
            values = values / max(1, np.prod(tensor.shape[1:])) ** 0.5
        else:
            values = 0.5 + 0.5 * values
        tensor.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    return model


def checkpoint(model, x) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """Return what a training loop keeps, after one step of Adam on `model`."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = functional.cross_entropy(model.train()(x), torch.arange(len(x)))
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    return {
        "epoch": 7,
        "model_state_dict": model.eval().state_dict(),
        "optimizer_state_dict": optimiser.state_dict(),
        "loss": float(loss.detach()),
        "accuracy": np.float64(0.8125),
        "args": argparse.Namespace(lr=1e-3, out=Path("runs")),
    }


def save(value, folder: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    """Save `value` as a zip archive and as a legacy stream."""
    torch.save(value, str(folder / (name + ".pt")), _use_new_zipfile_serialization=True)
    torch.save(value, str(folder / (name + "-legacy.pt")), _use_new_zipfile_serialization=False)


def main(folder: Path) -> None:
    """Write every file of this version, and what its own torch computes with each model."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.from_numpy(np.random.RandomState(0).standard_normal((3, 1, 16, 16)).astype(np.float32))
    with torch.no_grad():
        sequential, residual, blocks = (
            filled(model.eval(), seed) for seed, model in enumerate((wide(), Residual(), of_blocks()))
        )
    save(sequential, folder, "sequential")
    torch.save(nn.DataParallel(sequential), str(folder / "parallel.pt"), _use_new_zipfile_serialization=True)
    save(blocks.state_dict(), folder, "state_dict")
    outputs = {"x": x, "state_dict": blocks(x)}
    save(checkpoint(blocks, x), folder, "checkpoint")
    outputs.update({"checkpoint": blocks(x), "sequential": sequential(x), "residual": residual(x)})
    torch.jit.save(torch.jit.trace(sequential, x), str(folder / "sequential-traced.pt"))
    torch.jit.save(torch.jit.trace(residual, x), str(folder / "residual-traced.pt"))
    before = {name: tensor.clone() for name, tensor in residual.state_dict().items()}
    in_training = torch.jit.trace(residual.train(), x, check_trace=False)
    in_training.load_state_dict(before)
    torch.jit.save(in_training, str(folder / "residual-traced-training.pt"))
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())), str(folder / "scripted.pt"))
    if hasattr(torch, "export") and hasattr(torch.export, "save"):
        torch.export.save(torch.export.export(blocks, (x,)), str(folder / "exported.pt2"))
    np.savez(str(folder / "outputs.npz"), **{name: value.detach().numpy() for name, value in outputs.items()})
    (folder / "blocks.json").write_text(json.dumps(BLOCKS))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
