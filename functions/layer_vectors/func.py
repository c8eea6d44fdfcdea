"""Layer vectors: what makes the layers of different models comparable, from one forward pass over the probe set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.representation import probing
from layerscope.functions.analysis.representation.layers import stacked
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
    given = probing.references(dataset, device, LayerVectors.declared.parameters["input_like_below"])
    compared = probing.compared(model, dataset, device, given)
    n = len(dataset.part("probe").images)
    pairs = n * (n - 1) // 2
    return LayerVectors(
        probe=dataset.description.part_digest("probe") or "",
        images=n,
        layers=tuple(one.layer for one in compared),
        grams=stacked([one.gram for one in compared], pairs + n),
        cka=stacked([one.cka for one in compared], pairs),
        deconfounded=stacked([one.deconfounded for one in compared], pairs),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(LayerVectors, compute)
