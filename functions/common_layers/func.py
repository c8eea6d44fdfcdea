"""Common layers: a model's layers, and those of untrained networks like it, over images that other datasets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.representation import probing
from layerscope.functions.analysis.representation.layers import stacked
from layerscope.functions.analysis.representation.untrained_layers import untrained_layers
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.common_layers import CommonLayers
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> CommonLayers:
    """Do what `layer_vectors` and `reference_layers` do, over the common probe images, given as the dataset's own are.

    Raises:
        Refused: the model does not fit the dataset, or there are too few common images to compare anything on.
    """
    declared = CommonLayers.declared
    probe = probing.common_probe(dataset, declared.parameters["images"])
    given = probing.references(probe, device, declared.parameters["input_like_below"])
    found = probing.compared(model, probe, device, given)
    lines, drawn = untrained_layers(model, probe, device, given, declared)
    return CommonLayers(
        probe=dataset.description.common.sha256 if dataset.description.common else "",
        images=len(probe.images),
        layers=tuple(one.layer for one in found),
        untrained=lines,
        inputs=stacked([given.inputs], probe.pairs),
        input_gram=stacked([given.input_gram], probe.pairs + len(probe.images)),
        **probing.arrays(found, probe),
        **{f"untrained_{name}": array for name, array in probing.arrays(drawn, probe).items()},
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(CommonLayers, compute)
