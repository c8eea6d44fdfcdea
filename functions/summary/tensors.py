"""The tensors of a model that its layers do not make themselves, as source: own parameters and buffers, ties, constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from layerscope.functions.summary.modules import Tree, plain_name
from layerscope.models.safe_form.graph_spec import Graph, Weight

MAX_LITERAL: Final = 4_096
"""Numbers of a constant, which no state_dict holds, that are still written out."""
MAX_LITERALS: Final = 65_536
"""Numbers of all of them together; equal constants count once."""

TensorOf = Callable[[str], Tensor]


def registration(graph: Graph, tree: Tree, tensor_of: TensorOf) -> list[str]:
    """Return the statements that add what containers hold, tie what is tied, and freeze what is frozen."""
    written = _written(graph, tensor_of)
    lines = (_statement(weight, tree, tensor_of, written) for weight in graph.weights)
    return [*(line for line in lines if line is not None), *_freezing(graph, tree)]


def left_out(graph: Graph, tensor_of: TensorOf) -> list[str]:
    """Return the constants whose values are neither in the source nor in a state_dict."""
    written = _written(graph, tensor_of)
    return [one.name for one in graph.weights if one.kind == "constant" and not one.same_as and one.name not in written]


def _written(graph: Graph, tensor_of: TensorOf) -> dict[str, str]:
    """Return the constants whose values are in the source, each with the first that has the same ones."""
    first: dict[tuple[object, ...], str] = {}
    written, numbers = {}, 0
    for weight in graph.weights:
        if weight.kind != "constant" or weight.same_as is not None:
            continue
        tensor = tensor_of(weight.name)
        if tensor.numel() > MAX_LITERAL:
            continue
        key = (tensor.dtype, tensor.shape, tensor.detach().cpu().contiguous().numpy().tobytes())
        numbers += 0 if key in first else tensor.numel()
        if key in first or numbers <= MAX_LITERALS:
            written[weight.name] = first.setdefault(key, weight.name)
    return written


def _statement(weight: Weight, tree: Tree, tensor_of: TensorOf, written: Mapping[str, str]) -> str | None:
    owner, _, leaf = weight.name.rpartition(".")
    in_layer = owner not in tree.modules or tree.is_layer(owner)
    if in_layer and weight.same_as is None:
        return None
    same = weight.same_as or (written.get(weight.name) if written.get(weight.name) != weight.name else None)
    if same is not None:
        value = tree.tensor(same)
    elif weight.name in written:
        value = _values(tensor_of(weight.name))
    else:
        value = _empty(tensor_of(weight.name))
        if weight.kind == "parameter":
            value = f"nn.Parameter({value}{'' if weight.requires_grad else ', requires_grad=False'})"
    return _assigned(tree.owner(owner), leaf, value, weight, in_layer)


def _assigned(owner: str, leaf: str, value: str, weight: Weight, in_layer: bool) -> str:
    if weight.kind == "parameter" or in_layer:
        if plain_name(leaf):
            return f"{owner}.{leaf} = {value}"
        return f'{owner}.register_parameter("{leaf}", {value})'
    persistent = "" if weight.kind == "buffer" else ", persistent=False"
    return f'{owner}.register_buffer("{leaf}", {value}{persistent})'


def _empty(tensor: Tensor) -> str:
    return f"torch.empty({_shape(tensor)}{_dtype(tensor)})"


def _values(tensor: Tensor) -> str:
    numbers = ", ".join(map(_number, tensor.flatten().tolist()))
    return f"torch.tensor([{numbers}]{_dtype(tensor)}).reshape({_shape(tensor)})"


def _shape(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape)) or "()"


def _dtype(tensor: Tensor) -> str:
    return "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _freezing(graph: Graph, tree: Tree) -> Iterator[str]:
    """Yield what freezes the layers' own parameters, whole modules at once where all of one is frozen."""
    learns: dict[str, bool] = {
        one.name: one.requires_grad for one in graph.weights if one.kind == "parameter" and one.same_as is None
    }
    if all(learns.values()):
        return
    learning = {above for name, learn in learns.items() if learn for above in _above(name)}
    done: set[str] = set()
    for weight, learn in learns.items():
        frozen = next((one for one in _above(weight) if one in tree.modules and one not in learning), None)
        if frozen is not None and frozen not in done:
            done.add(frozen)
            yield f"{tree.path(frozen)}.requires_grad_(False)"
        elif frozen is None and not learn:
            yield f"{tree.tensor(weight)}.requires_grad_(False)"


def _above(name: str) -> Iterator[str]:
    """Yield the names of what holds this, from the model down."""
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(len(parts)))
