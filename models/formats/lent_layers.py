"""The layers of a stored model for a state dict that has the same names and shapes, as the checkpoints of one training have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from layerscope.models import safe_form
from layerscope.models.file_kinds import SENT, UPLOAD_CALL
from layerscope.models.formats.filling import COUNTER, to_torch
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.formats.state_dicts import State, is_average
from layerscope.models.safe_form import ModelFile
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

Lent = tuple[str, Path]
"""What a stored model is called, and its file."""
_SHOWN: Final = 3
_LOSS: Final = re.compile(
    r"([a-z0-9]+_)*(loss(es)?|criteri(on|a))(_(fns?|func|function|modules?|weights?))?_?[0-9]*", re.I | re.A
)
_METRIC: Final = re.compile(
    r"([a-z0-9]+_)*(metrics?|accs?|accuracy|top_?[1-9]|f1|auroc|auc|precision|recall|confusion|confmat)"
    r"(_(score|matrix|metrics?|top_?[1-9]|[1-9]))*",
    re.I | re.A,
)
"""Modules of losses and metrics, as people call them."""
_OF_LAYERS: Final = frozenset({"weight", "bias", "running_mean", "running_var"})
"""Tensors that no metric has."""


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


def lent(by: Lender, state: State, *, named: bool = False) -> Rebuilt | None:
    """Return a model of a lender's layers and a state dict's tensors; None where names or shapes differ.

    Tensors that are known to be no part of a forward pass, of a loss, a metric or an average of the weights, are left out
    with a note.

    Args:
        by: the layers.
        state: the state dict.
        named: whether the user has said that these are its layers; then whole modules beside the network are left out too.

    Raises:
        Refused: `unlike-lender`, the state dict has tensors besides that may be a part of the forward pass.
    """
    shapes = by.shapes
    prefix, averages = _place(state.tensors, shapes)
    if prefix is None or not shapes:
        return None
    mine = {name: state.tensors[prefix + name] for name in shapes if prefix + name in state.tensors}
    ties = {weight.name: weight.same_as for weight in by.graph.weights if weight.same_as is not None}
    if any(not _equal(mine[name], mine[first]) for name, first in ties.items() if name in mine):
        return None
    strangers = sorted(set(state.tensors) - {before + name for before in (prefix, *averages) for name in shapes})
    if unknown := [name for name in strangers if not is_no_part(name, prefix, named)]:
        raise _grown(by, prefix, unknown)
    tensors: dict[str, Tensor] = to_torch({name: one for name, one in mine.items() if name not in ties})
    for weight in by.graph.weights:
        if weight.kind == "constant" and weight.same_as is None:
            tensors[weight.name] = by.constant(weight.name)
        elif weight.name not in tensors and weight.same_as is None:
            tensors[weight.name] = torch.zeros(shapes[weight.name], dtype=torch.int64)  # a counter
    notes = [f"It has the layers of {by.name}, whose tensors have the same names and shapes."]
    if averages:
        notes.append(f"Averaged weights are in the file besides, and were left out: {', '.join(map(shown, averages))}.")
    if strangers:
        notes.append(f"Not part of it, and left out: {_list(strangers)}.")
    return Rebuilt(by.graph, tensors, f"the layers of {by.name}", (*state.notes, *notes), state.training)


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# What is in a file besides -------------------------------------------------------------------------------------------


def is_no_part(name: str, prefix: str, named: bool) -> bool:
    """Tell whether a tensor is known to take no part in the forward pass of a network whose names begin with `prefix`.

    One inside the network, or a tensor of the module that holds it, as a mean that images are divided by, may; so may a
    module beside it, unless it is of a loss or a metric, or the user has said that the network is all there is to it.
    """
    around = prefix
    while not name.startswith(around):
        around = around[: around[:-1].rfind(".") + 1]
    own, *inner = name[len(around) :].split(".")
    if _LOSS.fullmatch(own):
        return True
    if _METRIC.fullmatch(own) and (inner or [own])[-1] not in _OF_LAYERS:
        return True
    return around != prefix and (is_average(own) or (named and bool(inner) and not own.isdecimal()))


def _grown(by: Lender, prefix: str, unknown: Sequence[str]) -> Refused:
    inside = [name for name in unknown if name.startswith(prefix)]
    once = f"Send it once with its layers, and its state dicts are known from then on. {UPLOAD_CALL}"
    if inside:
        return Refused(
            "unlike-lender",
            f"All tensors of {by.name} are in this file, and others in the same network: {_list(inside)}. Its forward pass "
            "is another one.",
            f"{once}; or name a stored version that has them too: {SENT} --like DATASET/MODEL/VERSION",
        )
    return Refused(
        "unlike-lender",
        f"All tensors of {by.name} are in this file, as {shown(prefix)}, and others beside them that may take part in the "
        f"forward pass: {_list(unknown)}.",
        f"{once}. If those take no part: {SENT} --like {by.name}"
        if all(is_no_part(name, prefix, named=True) for name in unknown)
        else once,
    )


def _shapes(file: ModelFile) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that a state dict of a model has."""
    stored = file.header.tensors
    return {
        weight.name: tuple(stored[weight.same_as or weight.name].shape)
        for weight in file.graph.weights
        if weight.kind != "constant"
    }


def _place(
    tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str | None, tuple[str, ...]]:
    """Return what stands before the names of the model in what was saved, and before those of averages of its weights.

    None where it is not there, or more than once.
    """
    found = tuple(one for one in _prefixes(tensors, shapes) if _fits(tensors, shapes, one))
    plain = tuple(one for one in found if not is_average(one))
    if plain and len(plain) < len(found):
        return (plain[0] if len(plain) == 1 else None), tuple(one for one in found if one not in plain)
    return (found[0] if len(found) == 1 else None), ()


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
