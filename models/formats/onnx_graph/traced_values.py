"""The values of an ONNX file while it is followed, and what is written down of its layers: the types of `flow`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from layerscope.models.formats.onnx_graph.program import Program
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.tensors import Array
from layerscope.models.safe_form.graph_nodes import MAX_WHOLE, Ref
from layerscope.models.safe_form.safetensors_file import shown


@dataclass(frozen=True, slots=True, eq=False)
class Static:
    """A value that does not depend on what is in the images: one array for each probe, the same one if it is a constant."""

    arrays: tuple[Array, ...]
    name: str = ""
    """Of the tensor in the file whose values these are."""

    @property
    def constant(self) -> bool:
        """Whether the value is the same for every batch."""
        return all(array is self.arrays[0] for array in self.arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Dynamic:
    """A value that depends on the images: the node that computes it, and what that gives for each probe."""

    ref: Ref
    probes: tuple[Any, ...]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return int(self.probes[0].dim())

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape at each probe."""
        return tuple(tuple(probe.shape) for probe in self.probes)


Value: TypeAlias = Static | Dynamic


@dataclass(frozen=True, slots=True, eq=False)
class OnnxLayer:
    """A layer to be named: what its tensors' names say, the module that it was, and the module in which it was called."""

    kind: str
    arguments: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    weight: str
    scope: str
    inside: str
    fallback: str


@dataclass(frozen=True, slots=True, eq=False)
class Loose:
    """A tensor to be named that belongs to no layer."""

    name: str
    tensor: Tensor


def to_tensor(array: Array) -> Tensor:
    """Return an array as a tensor of its own: contiguous, in an order of bytes and a type that torch has."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bytes of a file are read-only; nobody writes into these tensors
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def in_graph(value: Any) -> Any:
    """Return an argument as the graph has it: references for values.

    Raises:
        Refused: `bad-argument`, a number that the graph cannot hold.
    """
    match value:
        case Dynamic():
            return value.ref
        case tuple() | list():
            return type(value)(in_graph(item) for item in value)
        case slice():
            return slice(in_graph(value.start), in_graph(value.stop), in_graph(value.step))
        case int() if abs(value) > MAX_WHOLE:
            raise refused("bad-argument", f"A step has the number {shown(value)}, which is too large.")
        case float() if not math.isfinite(value):
            raise refused("bad-argument", f"A step has the number {value}.")
    return value


def containers_of(program: Program) -> frozenset[str]:
    """Return the modules that hold others, as far as the file says."""
    scopes = {step.scope for step in program.steps if step.scope}
    return frozenset(scope[:place] for scope in scopes for place, mark in enumerate(scope) if mark == ".") | {""}


def key_of(layer: OnnxLayer, where: tuple[Any, ...]) -> Any:
    """Return what makes two calls calls of one layer: the tensors and their name, and the module that it came from."""
    name = (layer.weight if where else "", layer.scope)
    return (layer.kind, repr(sorted(layer.arguments.items())), where, *name) if where or any(name) else None
