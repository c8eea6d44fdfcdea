"""Layer vectors: what makes the layers of different models comparable, from one forward pass over the probe set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.representation import probing
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> LayerVectors:
    """Compare each layer's responses to any two images of the probe part, and pack them as vectors.

    Raises:
        Refused: the model does not fit the dataset, or the probe part is too small to compare anything on.
    """
    probe = probing.own_probe(dataset)
    given = probing.references(probe, device, LayerVectors.declared.parameters["input_like_below"])
    found = probing.compared(model, probe, device, given)
    return LayerVectors(
        probe=dataset.description.part_digest("probe") or "",
        images=len(probe.images),
        layers=tuple(one.layer for one in found),
        **probing.arrays(found, probe),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(LayerVectors, compute)
