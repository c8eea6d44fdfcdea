"""The values of an ONNX file while it is followed, and what is written down of its layers: the types of `flow`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from functions.formats.onnx_graph.program import Program
from functions.formats.onnx_graph.refusals import refused
from functions.formats.onnx_graph.tensors import Array
from functions.models.graph_nodes import MAX_WHOLE, Ref
from functions.models.graph_spec import layer_arguments
from functions.models.operators import LAYER_CLASSES
from functions.models.safetensors_file import shown

_BATCHES: Final = (2, 3)
_MISFITS: Final = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)
_SIZES: Final = (224, 256)
"""Height and width where the file leaves them open: what is the same at both does not depend on them."""


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
class Layer:
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


def probes_of(program: Program) -> tuple[Tensor, ...]:
    """Return the input at each size at which values are followed; a third one where the file leaves sizes open.

    Raises:
        Refused: `no-single-input`.
    """
    rest = program.shape[1:]
    if any(size is None for size in (rest if len(rest) == 1 else rest[:1])):
        raise refused("no-single-input", "The file does not say how many channels the images have.")
    fixed = (*_BATCHES, _BATCHES[0]) if None in rest else _BATCHES
    sizes = [[_SIZES[number // 2] if size is None else size for size in rest] for number in range(len(fixed))]
    return tuple(torch.empty((batch, *size), device="meta") for batch, size in zip(fixed, sizes, strict=True))


def to_tensor(array: Array) -> Tensor:
    """Return an array as a tensor of its own: contiguous, in an order of bytes and a type that torch has."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bytes of a file are read-only; nobody writes into these tensors
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def module_of(layer: Layer) -> torch.nn.Module:
    """Return a layer on the meta device, once its arguments are allowed and its tensors fit.

    Raises:
        Refused: `unknown-module`, `bad-argument`, `bad-shape`, `shape-mismatch`.
    """
    arguments = layer_arguments(layer.weight or layer.scope or layer.fallback, layer.kind, layer.arguments)

    def make() -> torch.nn.Module:
        with torch.device("meta"):
            return LAYER_CLASSES[layer.kind](
                **{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
            )

    module: torch.nn.Module = tried(layer.kind, make).eval()
    for name, tensor in module.state_dict().items():
        given = layer.tensors[name]
        if given.shape != tensor.shape or given.is_floating_point() != tensor.is_floating_point():
            what = f"{name} of {shown(layer.weight or layer.fallback)}"
            raise refused(
                "shape-mismatch", f"The {what} has the shape {shown(tuple(given.shape))}, or a type, of its own."
            )
    return module


def tried(what: str, call: Callable[[], Any]) -> Any:
    """Call something that raises where a file's sizes do not fit.

    Raises:
        Refused: `bad-shape`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except _MISFITS as error:
        reason = shown(str(error).partition("\n")[0])
        raise refused("bad-shape", f"A step of the model ({what}) cannot be computed: {reason}.") from error


def at_probe(value: Any, probe: int) -> Any:
    """Return an argument as it is at one probe."""
    match value:
        case Dynamic():
            return value.probes[probe]
        case tuple() | list():
            return type(value)(at_probe(item, probe) for item in value)
    return value


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


def key_of(layer: Layer, where: tuple[Any, ...]) -> Any:
    """Return what makes two calls calls of one layer: the tensors and their name, and the module that it came from."""
    name = (layer.weight if where else "", layer.scope)
    return (layer.kind, repr(sorted(layer.arguments.items())), where, *name) if where or any(name) else None
