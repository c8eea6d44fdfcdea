"""Models for tests, in the safe form: small, untrained, different by seed."""

from __future__ import annotations

import torch

from functions.models import pack
from layerscope.demo import plain

PRODUCTS = {"predictions", "evaluation", "confusion_matrix", "layer_vectors"}


def packed(seed: int) -> bytes:
    """Return the demo's plain network with random weights."""
    torch.manual_seed(seed)
    return pack(plain())
