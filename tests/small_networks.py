"""Models for tests, in the safe form: small, untrained, different by seed."""

from __future__ import annotations

import torch
from torch import nn

from layerscope.demo.networks import plain
from layerscope.models.safe_form import pack
from layerscope.schemas.products import declared_products

PRODUCTS = {one.declared.name for one in declared_products()}
ANALYSED = PRODUCTS - {"training_history"}
"""What is complete of a model that nothing was uploaded beside."""


def packed(seed: int) -> bytes:
    """Return the demo's plain network with random weights."""
    torch.manual_seed(seed)
    return pack(plain())


def tiny(seed: int) -> bytes:
    """Return the smallest network that has every product: one convolution of two channels, one classifier."""
    torch.manual_seed(seed)
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return pack(nn.Sequential(*pooled, nn.Linear(2 * 4 * 4, 10)))
