"""Layers of untrained networks of a model's architecture, over the same images: what a similarity is judged against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from layerscope.functions.analysis.representation import probing
from layerscope.functions.analysis.representation.layers import Compared, References, compare
from layerscope.functions.analysis.representation.probing import Probe
from layerscope.schemas.products.product import Declaration
from layerscope.schemas.products.reference_layers import ReferenceLayer

if TYPE_CHECKING:
    from torch import nn


def untrained_layers(
    model: nn.Module, probe: Probe, device: str, given: References, declared: Declaration
) -> tuple[tuple[ReferenceLayer, ...], list[Compared]]:
    """Draw the model's weights anew, several times, and return the layers of each network.

    Args:
        model: in eval mode, on `device`.
        probe: the images.
        device: where to compute.
        given: what layers over these images are compared with.
        declared: has the seed, and as parameters `networks`, `multiply_adds` and `layers_kept`.

    Raises:
        Refused: the model does not fit the dataset.
    """
    # torch is imported in the worker only
    from layerscope.functions.analysis.untrained import affordable, untrained

    most, layers = declared.parameters["networks"], declared.parameters["layers_kept"]
    lines: list[ReferenceLayer] = []
    found: list[Compared] = []
    for network in range(affordable(model, probe.images.shape, declared.parameters["multiply_adds"], most)):
        drawn = untrained(model, (declared.seed or 0) * most + network)
        calls = probing.calls(drawn, probe, device)
        for at in kept(len(calls), layers):
            one, depth = compare(*calls[at], given), at / max(len(calls) - 1, 1)
            lines.append(ReferenceLayer(network=network, position=at, depth=depth, layer=one.layer))
            found.append(one)
    return tuple(lines), found


def kept(layers: int, most: int) -> list[int]:
    """Return which of `layers` layers stand for all: at most `most`, evenly from the first to the last."""
    if layers <= most:
        return list(range(layers))
    return [int(at) for at in np.linspace(0, layers - 1, most).round()]
