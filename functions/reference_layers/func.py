"""Reference layers: what untrained networks of a model's architecture make of the probe images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.representation import probing
from layerscope.functions.analysis.representation.layers import stacked
from layerscope.functions.analysis.representation.untrained_layers import untrained_layers
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.reference_layers import ReferenceLayers
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> ReferenceLayers:
    """Draw the model's weights anew, several times, and pack the layers of each network as `layer_vectors` does.

    Raises:
        Refused: the model does not fit the dataset, or the probe part is too small to compare anything on.
    """
    declared, probe = ReferenceLayers.declared, probing.own_probe(dataset)
    given = probing.references(probe, device, declared.parameters["input_like_below"])
    lines, found = untrained_layers(model, probe, device, given, declared)
    return ReferenceLayers(
        probe=dataset.description.part_digest("probe") or "",
        images=len(probe.images),
        label_cka_of_pixels=None
        if given.inputs is None or given.labels is None
        else float(given.inputs @ given.labels),
        layers=lines,
        inputs=stacked([given.inputs], probe.pairs),
        input_gram=stacked([given.input_gram], probe.pairs + len(probe.images)),
        **probing.arrays(found, probe),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(ReferenceLayers, compute)
