"""Reference layers: what untrained networks of a model's architecture make of the probe images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope.functions.analysis.representation import probing
from layerscope.functions.analysis.representation.layers import Compared, stacked
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.reference_layers import ReferenceLayer, ReferenceLayers
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> ReferenceLayers:
    """Draw the model's weights anew, several times, and pack the layers of each network as `layer_vectors` does.

    Raises:
        Refused: the model does not fit the dataset, or the probe part is too small to compare anything on.
    """
    # torch is imported in the worker only
    from layerscope.functions.analysis.activations import weight_layers
    from layerscope.functions.analysis.untrained import untrained

    declared = ReferenceLayers.declared
    given = probing.references(dataset, device, declared.parameters["input_like_below"])
    networks, most = declared.parameters["networks"], declared.parameters["layers_kept"]
    lines: list[ReferenceLayer] = []
    found: list[Compared] = []
    layers = len(weight_layers(model))
    for network in range(min(networks, max(most // max(layers, 1), 1))):
        drawn = untrained(model, (declared.seed or 0) * networks + network)
        compared = probing.compared(drawn, dataset, device, given)
        for at in kept(len(compared), most):
            depth = at / max(len(compared) - 1, 1)
            lines.append(ReferenceLayer(network=network, depth=depth, layer=compared[at].layer))
            found.append(compared[at])
    n = len(dataset.part("probe").images)
    pairs = n * (n - 1) // 2
    pixels = None if given.inputs is None or given.labels is None else float(given.inputs @ given.labels)
    arrays: dict[str, Any] = {
        "grams": stacked([one.gram for one in found], pairs + n),
        "cka": stacked([one.cka for one in found], pairs),
        "deconfounded": stacked([one.deconfounded for one in found], pairs),
        "inputs": stacked([given.inputs], pairs),
    }
    return ReferenceLayers(
        probe=dataset.description.part_digest("probe") or "",
        images=n,
        label_cka_of_pixels=pixels,
        layers=tuple(lines),
        **arrays,
    )


def kept(layers: int, most: int) -> list[int]:
    """Return which of `layers` layers stand for all: at most `most`, evenly from the first to the last."""
    if layers <= most:
        return list(range(layers))
    return [int(at) for at in np.linspace(0, layers - 1, most).round()]


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(ReferenceLayers, compute)
