"""What a step gives, by torch on the meta device: sizes and types without memory, at two sizes of batch.

What is the same at both is a constant, whatever arithmetic on sizes the exporter wrote down; what differs depends on the
batch. A step that was tried with the same arguments before is not tried again, and there is a budget for all others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from layerscope.models.formats.onnx_graph.program import Program
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, OnnxLayer
from layerscope.models.safe_form.graph_spec import layer_arguments
from layerscope.models.safe_form.operators import ATTRIBUTE_CALLS, FUNCTION_CALLS, LAYER_CLASSES, METHOD_CALLS
from layerscope.models.safe_form.safetensors_file import MAX_DIMENSIONS, shown

MAX_TRIED: Final = 1_200
"""Layers made, and calls at each size of batch, that are not alike. The most that a classifier of torchvision takes is 763."""

_BATCHES: Final = (2, 3)
_SIZES: Final = (224, 256)
"""Height and width where the file leaves them open: what is the same at both does not depend on them."""
_MISFITS: Final = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)
_ELEMENTWISE: Final = frozenset(
    {
        *("CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "Mish", "ReLU", "ReLU6", "SELU"),
        *("SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh"),
    }
)
"""What takes floating point of any shape, and gives the same shape."""
_CALLS: Final[Mapping[str, Mapping[str, Callable[..., Any]]]] = {
    "function": FUNCTION_CALLS,
    "method": METHOD_CALLS,
    "attribute": ATTRIBUTE_CALLS,
}


def probes_of(program: Program) -> tuple[Tensor, ...]:
    """Return the input at each size at which values are followed; a third one where the file leaves sizes open.

    Raises:
        Refused: `no-single-input`, `bad-shape`.
    """
    rest = program.shape[1:]
    if any(size is None for size in (rest if len(rest) == 1 else rest[:1])):
        raise refused("no-single-input", "The file does not say how many channels the images have.")
    fixed = (*_BATCHES, _BATCHES[0]) if None in rest else _BATCHES
    sizes = [[_SIZES[number // 2] if size is None else size for size in rest] for number in range(len(fixed))]
    return tuple(
        _tried("input", partial(torch.empty, (batch, *size), device="meta"))
        for batch, size in zip(fixed, sizes, strict=True)
    )


class Prober:
    """Tries steps and layers, equal ones once."""

    def __init__(self) -> None:
        """Begin with a whole budget."""
        self._results: dict[Any, Any] = {}
        self._left = MAX_TRIED

    def call(self, operation: str, target: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what a function or method of the vocabulary gives.

        Raises:
            Refused: `bad-shape`, `too-many-nodes`.
        """
        key = (operation, target, _key(args), _key(tuple(kwargs.items())))
        return self._once(key, target, partial(_CALLS[operation][target], *args, **kwargs))

    def layer(self, layer: OnnxLayer, images: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Return what a layer gives at each probe, once its arguments are allowed and its tensors fit.

        Raises:
            Refused: `unknown-module`, `bad-argument`, `bad-shape`, `shape-mismatch`, `too-many-nodes`.
        """
        arguments = layer_arguments(layer.weight or layer.scope or layer.fallback, layer.kind, layer.arguments)
        kind = (layer.kind, _key(tuple(arguments.items())))
        module: torch.nn.Module = self._once(kind, layer.kind, partial(_made, layer.kind, arguments))
        _check_tensors(layer, module)
        if layer.kind in _ELEMENTWISE and all(isinstance(one, Tensor) and one.is_floating_point() for one in images):
            return images
        return tuple(self._once((*kind, _key(probe)), layer.kind, partial(module, probe)) for probe in images)

    def _once(self, key: Any, what: str, call: Callable[[], Any]) -> Any:
        if key not in self._results:
            self._left -= 1
            if self._left < 0:
                raise refused("too-many-nodes", "The model has too many steps that are not alike.")
            self._results[key] = _tried(what, call)
        return self._results[key]


def _key(value: Any) -> Any:
    """Return what makes two arguments equal: of a tensor all but where it lies."""
    match value:
        case Tensor():
            return (value.dtype, value.shape, value.stride())
        case tuple() | list():
            return (type(value), tuple(_key(item) for item in value))
        case slice():
            return (slice, value.start, value.stop, value.step)
    return (type(value), value)


def _made(kind: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
        return LAYER_CLASSES[kind](**plain).eval()


def _check_tensors(layer: OnnxLayer, module: torch.nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        given = layer.tensors[name]
        if given.shape != tensor.shape or given.is_floating_point() != tensor.is_floating_point():
            what = f"{name} of {shown(layer.weight or layer.fallback)}"
            raise refused(
                "shape-mismatch", f"The {what} has the shape {shown(tuple(given.shape))}, or a type, of its own."
            )


def _tried(what: str, call: Callable[[], Any]) -> Any:
    """Call something that raises where a file's sizes do not fit.

    Raises:
        Refused: `bad-shape`.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            result = call()
    except _MISFITS as error:
        reason = shown(str(error).partition("\n")[0])
        raise refused("bad-shape", f"A step of the model ({what}) cannot be computed: {reason}.") from error
    if isinstance(result, Tensor) and result.dim() > MAX_DIMENSIONS:
        raise refused("bad-shape", f"A step of the model ({what}) gives a value of {result.dim()} dimensions.")
    return result


def at_probe(value: Any, probe: int) -> Any:
    """Return an argument as it is at one probe."""
    match value:
        case Dynamic():
            return value.probes[probe]
        case tuple() | list():
            return type(value)(at_probe(item, probe) for item in value)
    return value
