"""Files as people save them, and whether a model that was read from one is the model that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from layerscope.models.formats.pickle_values import Value
from layerscope.models.formats.pickled import read_pickled

Container = Literal["zip", "legacy"]
CONTAINERS: tuple[Container, ...] = ("zip", "legacy")


def read(saved: Any, folder: Path, container: Container = "zip") -> Value:
    """Save `saved` by torch and read it by the reader."""
    path = folder / "saved.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=container == "zip")
    return read_pickled(path).root


def randomise(module: nn.Module) -> nn.Module:
    """Give parameters and buffers values that no constructor would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.is_floating_point():
                tensor.fill_(3)
            elif tensor.dim() < 2:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return module.eval()


def images(*shape: int) -> Tensor:
    """Return a batch of noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(6))


def difference(ours: nn.Module, theirs: nn.Module, batch: Tensor) -> float:
    """Return the largest difference of the outputs, which must vary for it to mean something."""
    with torch.no_grad():
        mine, expected = ours(batch.clone()), theirs(batch.clone())
    assert torch.isfinite(expected).all()
    assert expected.numel() == 1 or expected.std() > 0
    return float((mine - expected).abs().max())
