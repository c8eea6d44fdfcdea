"""The shape of every value of the graph for one image, on torch's meta device: nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_module import assemble, tapped

Shape = tuple[int, ...]


def shapes(model: SafeModel, image: tuple[int, int, int]) -> dict[int, Shape]:
    """Return the shape of each node's value, without its first axis (the batch's); nodes without one tensor are left out.

    Args:
        model: takes such images, as `functions.costs.measure` has found.
        image: height, width, channels.
    """
    found: dict[int, Shape] = {}

    def keep(index: int, value: Any) -> None:
        if isinstance(value, Tensor):
            found[index] = tuple(value.shape[1:])

    def tensor_of(name: str) -> Tensor:
        owner, _, leaf = name.rpartition(".")
        held: Tensor = getattr(model.get_submodule(owner), leaf)
        return torch.empty_like(held, device="meta")

    bare = assemble(model.safe_graph, tensor_of)
    taps: dict[int, Callable[[Any], None]] = {
        index: partial(keep, index) for index in range(len(bare.safe_graph.nodes))
    }
    height, width, channels = image
    with tapped(bare, taps), torch.no_grad():
        bare(torch.empty((1, channels, height, width), device="meta"))
    return found
