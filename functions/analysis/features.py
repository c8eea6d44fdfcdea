"""What a model has made of an image when it comes to its last layer with weights: that layer's input, a row an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.functions.analysis.activations import given, weight_layers
from layerscope.models.safe_form import SafeModel


def last_weight_layer(model: SafeModel) -> str | None:
    """Return the convolution or linear layer that the forward pass comes to last, by its name in `named_modules()`."""
    names = {id(layer): name for name, layer in weight_layers(model).items()}
    for node in reversed(model.safe_graph.nodes):
        if node.operation == "layer" and (name := names.get(id(model.get_submodule(node.target)))) is not None:
            return name
    return None


class Features:
    """Takes the features of each batch that goes through: float32 (N, D), of several calls of the layer the last."""

    def __init__(self, layer: str | None) -> None:
        self._layer = layer
        self.rows: NDArray[np.float32] | None = None

    @contextmanager
    def taken(self, model: nn.Module) -> Iterator[None]:
        """Look at every forward pass inside."""
        if self._layer is None:
            yield
            return
        layer = model.get_submodule(self._layer)
        with given(layer, lambda value: self._take(layer, value)):
            yield

    def _take(self, layer: nn.Module, value: Tensor) -> None:
        self.rows = flat(layer, value).float().cpu().numpy()


def flat(layer: nn.Module, value: Tensor) -> Tensor:
    """Return a layer's input (N, …) as (N, D): where it has positions or tokens, their mean."""
    if isinstance(layer, nn.Linear):
        return value.flatten(1, -2).mean(dim=1) if value.ndim > 2 else value
    return value.flatten(2).mean(dim=2) if value.ndim > 2 else value
