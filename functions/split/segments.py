"""The cuts that are listed, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.safe_form.meter import Meter, RecurrentLayers
from layerscope.models.stages import Cut, cuts, stage_of
from layerscope.models.stages.stage import StageModel, between, tensors
from layerscope.models.stages.wire import can_be_sent, sent
from layerscope.schemas.products.split import CarriedValue, Segment


def listed(model: SafeModel, graph: Graph, image: Tensor, most: int) -> tuple[dict[int, CarriedValue], list[Cut]]:
    """Return every value that can be sent, by the step that makes it, and the cuts that one tensor crosses.

    Where there is no such cut, those that the fewest tensors cross. Of more than `most` cuts, as many, evenly spread. What
    only the input crosses is none: nothing would have been done before it.
    """
    found: dict[int, CarriedValue] = {}
    is_tensor: dict[int, bool] = {0: True}

    def see(step: int, value: Any) -> None:
        if can_be_sent(value):
            entry = sent("", value).entry
            size = entry["parameters"]["binary_data_size"]
            found[step] = CarriedValue(node=step, datatype=entry["datatype"], shape=entry["shape"], bytes=size)
        is_tensor[step] = isinstance(value, Tensor)

    see(0, image)
    StageModel(stage_of(graph), tensors(model).__getitem__)((image,), see)
    possible = [cut for cut in cuts(graph) if all(value in found for value in cut.values)]
    crossing = [(cut, frozenset(value for value in cut.values if is_tensor[value])) for cut in possible]
    useful = [(cut, tensors_of) for cut, tensors_of in crossing if tensors_of and tensors_of != {0}]
    fewest = min((len(tensors_of) for _, tensors_of in useful), default=0)
    kept: dict[frozenset[int], Cut] = {}
    # Where the same tensors cross, the place at which the fewest numbers do; of equals the first.
    for cut, tensors_of in sorted(useful, key=lambda one: len(one[0].values)):
        if len(tensors_of) == fewest:
            kept.setdefault(tensors_of, cut)
    places = sorted(kept.values(), key=lambda cut: cut.after)
    return found, [places[k * len(places) // most] for k in range(most)] if len(places) > most else places


def place(graph: Graph, cut: Cut) -> str:
    """Return what a person calls a cut: the layer that it comes after, or the call and the layer before that."""
    node = graph.nodes[cut.values[-1]]
    if node.operation == "layer":
        return node.target
    before = (one.target for one in reversed(graph.nodes[: cut.values[-1]]) if one.operation == "layer")
    call = node.target.rpartition(".")[2]
    return next((f"{call} after {layer}" for layer in before), call)


def segment_costs(model: SafeModel, graph: Graph, places: Sequence[Cut], image: Tensor) -> list[Segment]:
    """Return what lies before the first cut, between each two, and after the last, as one image (1, C, H, W) shows it.

    Not to be called in inference mode, in which the meter would see whole layers instead of their products.
    """
    held, meter = tensors(model), Meter(model)
    found: list[Segment] = []
    values: tuple[Any, ...] = (image,)
    with torch.no_grad(), meter, RecurrentLayers(meter):
        for stage in between(graph, places, held.__getitem__):
            before = meter.multiply_adds
            values = stage(values)
            own = {name: held[name] for name in stage.stage.stored.values()}
            size = sum(tensor.numel() * tensor.element_size() for tensor in own.values())
            adds = meter.multiply_adds - before
            found.append(Segment(steps=len(stage.stage.steps), multiply_adds=adds, tensor_bytes=size))
    return found
