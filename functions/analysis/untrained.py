"""An untrained network of a model's architecture: its graph, with new weights; and how many of them a model can have."""

from __future__ import annotations

import copy
import hashlib
from typing import Final

import torch
from torch import nn

from layerscope.models.safe_form.costs import measure
from layerscope.schemas.errors import Refused

# Class tokens, position embeddings and the like, as Dosovitskiy et al. 2021 and Touvron et al. 2021 draw them.
TOKEN_DEVIATION: Final = 0.02


def untrained(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a model, in eval mode, with weights that are drawn from `seed` and the model's own weights.

    Each layer is initialised as PyTorch does when one is made (`reset_parameters`): convolutions and linear layers by
    He et al. 2015, in the uniform form with a = sqrt 5, attention by Glorot & Bengio 2010, normalisation by the identity.
    Tensors that belong to no layer are drawn from N(0, 0.02²) where they have two axes or more; a vector, which is a
    scale or an offset, becomes its own mean. The weights of the model have a part in the seed so that two models of one
    architecture lead to independent networks, and the same model always to the same one.
    """
    made = copy.deepcopy(model)
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    made.to("cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_seed(model, seed))
        for module in made.modules():
            _initialise(module)
    return made.to(device).eval()


def affordable(model: nn.Module, shape: tuple[int, ...], multiply_adds: int, most: int) -> int:
    """Return how many networks like a model may run over images of this shape (n, H, W, C): from one to `most`."""
    count, height, width, channels = shape
    try:
        each = measure(model, (channels, height, width)).multiply_adds  # type: ignore[arg-type]
    except Refused:  # a cost that is not known beforehand
        return 1
    return max(1, min(multiply_adds // max(each * count, 1), most))


def _initialise(module: nn.Module) -> None:
    # MultiheadAttention's has an underscore, and leaves its output projection to that layer's own.
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        if parameter.ndim >= 2:
            parameter.normal_(0.0, TOKEN_DEVIATION)
        elif parameter.is_floating_point():
            parameter.fill_(parameter.mean())


def _seed(model: nn.Module, seed: int) -> int:
    found = hashlib.sha256(str(seed).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return int.from_bytes(found.digest()[:8], "big") >> 1
