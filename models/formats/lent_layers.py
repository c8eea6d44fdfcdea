"""The layers of a stored model for a state dict that has the same names and shapes, as the checkpoints of one training have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerscope.models import safe_form
from layerscope.models.formats.filling import COUNTER, to_torch
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.formats.state_dicts import State
from layerscope.models.safe_form import ModelFile
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

Lent = tuple[str, Path]
"""What a stored model is called, and its file."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Lender:
    """Layers to be lent: whose they are, the graph, the shapes of a state dict's tensors, and its constants by name."""

    name: str
    graph: Graph
    shapes: Mapping[str, tuple[int, ...]]
    constant: Callable[[str], Tensor]


def stored(by: Lent) -> Lender | None:
    """Return the layers of a stored model; None where its file cannot be read, which is nothing to this one."""
    name, path = by
    try:
        file = safe_form.read(path)
    except Refused:
        return None
    return Lender(name, file.graph, _shapes(file), lambda one: safe_form.tensor(file, one))


def lent(by: Lender, state: State) -> Rebuilt | None:
    """Return a model of a lender's layers and a state dict's tensors; None where names or shapes differ.

    Further tensors of the state dict, as of a loss or a metric, are left out with a note.
    """
    shapes = by.shapes
    prefixes = [one for one in _prefixes(state.tensors, shapes) if _fits(state.tensors, shapes, one)]
    if len(prefixes) != 1 or not shapes:
        return None
    (prefix,) = prefixes
    mine = {name: state.tensors[prefix + name] for name in shapes if prefix + name in state.tensors}
    ties = {weight.name: weight.same_as for weight in by.graph.weights if weight.same_as is not None}
    if any(not _equal(mine[name], mine[first]) for name, first in ties.items() if name in mine):
        return None
    tensors: dict[str, Tensor] = to_torch({name: one for name, one in mine.items() if name not in ties})
    for weight in by.graph.weights:
        if weight.kind == "constant" and weight.same_as is None:
            tensors[weight.name] = by.constant(weight.name)
        elif weight.name not in tensors and weight.same_as is None:
            tensors[weight.name] = torch.zeros(shapes[weight.name], dtype=torch.int64)  # a counter
    notes = [f"It has the layers of {by.name}, whose tensors have the same names and shapes."]
    if strangers := sorted(set(state.tensors) - {prefix + name for name in shapes}):
        more = f" and {len(strangers) - _SHOWN} more" if len(strangers) > _SHOWN else ""
        notes.append(f"Not part of it, and left out: {', '.join(map(shown, strangers[:_SHOWN]))}{more}.")
    return Rebuilt(by.graph, tensors, f"the layers of {by.name}", (*state.notes, *notes), state.training)


def _shapes(file: ModelFile) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that a state dict of a model has."""
    stored = file.header.tensors
    return {
        weight.name: tuple(stored[weight.same_as or weight.name].shape)
        for weight in file.graph.weights
        if weight.kind != "constant"
    }


def _prefixes(tensors: Mapping[str, StoredTensor], shapes: Mapping[str, object]) -> Iterator[str]:
    """Yield what may stand before the names of a model that is a part of what was saved."""
    first = next(iter(shapes), "")
    yield from (name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}"))


def _fits(tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], prefix: str) -> bool:
    """Tell whether all tensors are there; counters of batches may be missing."""
    return all(
        found.shape == shape if (found := tensors.get(prefix + name)) is not None else name.endswith(COUNTER)
        for name, shape in shapes.items()
    )


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    return np.array_equal(one.array, other.array, equal_nan=one.array.dtype.kind == "f")
