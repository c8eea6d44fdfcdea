"""A torch module that walks a checked `Graph`: the same layer names, hooks and gradients as the model it came from.

No Python source is made from what a file says, as `torch.fx.GraphModule` would: each node is looked up and called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, nn

from layerscope.models.file_kinds import PACK_COMMAND
from layerscope.models.safe_form.graph_nodes import DType, Node, Ref, refuse
from layerscope.models.safe_form.graph_spec import Graph, Module, Weight
from layerscope.models.safe_form.operators import ATTRIBUTE_CALLS, DTYPES, FUNCTION_CALLS, LAYER_CLASSES, METHOD_CALLS
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

TensorOf = Callable[[str], Tensor]

_CALLS: Final[Mapping[str, Mapping[str, Callable[..., Any]]]] = {
    "function": FUNCTION_CALLS,
    "method": METHOD_CALLS,
    "attribute": ATTRIBUTE_CALLS,
}


class Container(nn.Module):
    """A module that only holds others; it is shown under the class name it had."""

    def __init__(self, kind: str) -> None:
        """Make an empty container that is shown as `kind`."""
        super().__init__()
        self._safe_kind = kind

    def _get_name(self) -> str:
        return self._safe_kind


class SafeModel(Container):
    """The model: its module tree, and a forward pass that walks the graph."""

    def __init__(self, graph: Graph) -> None:
        """Make the model without its layers; `assemble` adds them."""
        super().__init__(graph.modules[0].kind)
        self._safe_graph = graph  # a prefix that no layer of a real model is likely to take
        self.safe_taps: Mapping[int, Callable[[Any], None]] = {}  # see tapped

    @cached_property
    def _safe_releases(self) -> tuple[tuple[int, ...], ...]:
        return _releases(self._safe_graph)

    @property
    def safe_graph(self) -> Graph:
        """Return the graph that is walked."""
        return self._safe_graph

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's output for a batch `x`, freeing each value after its last use.

        Raises:
            TypeError: the output is not a tensor, or a step was given what it does not take.
        """
        values: dict[int, Any] = {}
        for index, node in enumerate(self._safe_graph.nodes):
            values[index] = x if node.operation == "input" else self.step(node, values)
            if index in self.safe_taps:
                self.safe_taps[index](values[index])
            for used in self._safe_releases[index]:
                del values[used]
        (output,) = values.values()
        if not isinstance(output, Tensor):
            raise TypeError(f"the model returns a {type(output).__name__}, not a tensor")
        return output

    def step(self, node: Node, values: Mapping[int, Any]) -> Any:
        """Return the value of one node, given those of the nodes before it that it uses."""
        args = [_resolve(value, values) for value in node.args]
        if node.operation == "output":
            return args[0]
        if node.operation == "tensor":
            owner, _, name = node.target.rpartition(".")
            return getattr(self.get_submodule(owner), name)
        kwargs = {keyword: _resolve(value, values) for keyword, value in node.kwargs.items()}
        if node.operation == "layer":
            return self.get_submodule(node.target)(*args, **kwargs)
        return _CALLS[node.operation][node.target](*args, **kwargs)


def as_built(tensor: Tensor) -> Tensor:
    """Return a tensor as models are built with it: float32 where it is of floats."""
    return tensor.float() if tensor.is_floating_point() else tensor


def without_values(tensor: Tensor) -> Tensor:
    """Return the same on the meta device."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")


@contextmanager
def tapped(model: SafeModel, taps: Mapping[int, Callable[[Tensor], None]]) -> Iterator[None]:
    """Give the value of each of these nodes of the graph to its function, in every forward pass inside.

    That is how functions and methods, such as `relu`, are seen, which no hook reaches. A value is given as soon as it
    is there, so what an in-place operation behind it does comes later.
    """
    model.safe_taps = taps
    try:
        yield
    finally:
        model.safe_taps = {}


def _resolve(value: Any, values: Mapping[int, Any]) -> Any:
    match value:
        case Ref(node):
            return values[node]
        case DType(name):
            return DTYPES[name]
        case slice(start=start, stop=stop, step=step):
            return slice(_resolve(start, values), _resolve(stop, values), _resolve(step, values))
        case tuple():
            return tuple(_resolve(item, values) for item in value)
        case list():
            return [_resolve(item, values) for item in value]
    return value


def refs(value: Any) -> Iterator[int]:
    """Yield the numbers of the nodes that an argument, or several, refers to."""
    match value:
        case Ref(node):
            yield node
        case slice(start=start, stop=stop, step=step):
            yield from refs((start, stop, step))
        case tuple() | list():
            for item in value:
                yield from refs(item)


def last_uses(graph: Graph) -> list[int]:
    """Return for each node the last that uses its value; where none does, itself."""
    last = list(range(len(graph.nodes)))
    for index, node in enumerate(graph.nodes):
        for used in refs((*node.args, *node.kwargs.values())):
            last[used] = index
    return last


def _releases(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """Return for each node the values that nobody needs after it; the last node's own is kept."""
    last = last_uses(graph)
    releases: list[list[int]] = [[] for _ in graph.nodes]
    for value, index in enumerate(last[:-1]):
        releases[index].append(value)
    return tuple(map(tuple, releases))


# Building ------------------------------------------------------------------------------------------------------------


def assemble(graph: Graph, tensor_of: TensorOf) -> SafeModel:
    """Build the module of `graph`, in eval mode; `tensor_of` gives the tensor of a name, once each.

    Layers are made without memory of their own, and take each tensor only if they expect one of its name and shape.

    Raises:
        Refused: `bad-argument`, `bad-name`, `missing-tensor`, `unexpected-tensor`, `shape-mismatch`, `dtype-mismatch`.
    """
    model = SafeModel(graph)
    built: dict[str, nn.Module] = {"": model}
    for module in graph.modules[1:]:
        parent, _, name = module.name.rpartition(".")
        built[module.name] = _make(module) if module.same_as is None else built[module.same_as]
        _register(built[parent].add_module, name, built[module.name])
    tensors: dict[str, Tensor] = {}
    for weight in graph.weights:
        tensors[weight.name] = _tensor(weight, tensors, tensor_of)
        _give(built, weight, tensors[weight.name])
    for module in graph.modules:
        if module.arguments is not None:
            _check_complete(module.name, built[module.name], tensors)
    return model.eval()


def _make(module: Module) -> nn.Module:
    if module.arguments is None:
        return Container(module.kind)
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in module.arguments.items()}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever made the model has seen them
            return LAYER_CLASSES[module.kind](**arguments)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise refuse("bad-argument", f"Layer {shown(module.name)} cannot be made: {shown(str(error))}.") from error


def _register(register: Callable[..., None], name: str, *rest: Any, **options: Any) -> None:
    try:
        register(name, *rest, **options)
    except KeyError as error:
        raise Refused(
            "bad-name",
            f"{shown(name)} is already something else in a torch module, and cannot name a layer or tensor.",
            f"Rename it in the model, then: {PACK_COMMAND}",
        ) from error


def _tensor(weight: Weight, tensors: Mapping[str, Tensor], tensor_of: TensorOf) -> Tensor:
    if weight.same_as is not None:
        return tensors[weight.same_as]
    tensor = tensor_of(weight.name)
    return nn.Parameter(tensor, weight.requires_grad) if weight.kind == "parameter" else tensor


def _give(built: Mapping[str, nn.Module], weight: Weight, tensor: Tensor) -> None:
    owner_name, _, name = weight.name.rpartition(".")
    owner = built.get(owner_name)
    if isinstance(owner, Container):
        if weight.kind == "parameter":
            _register(owner.register_parameter, name, tensor)
        else:
            _register(owner.register_buffer, name, tensor, persistent=weight.kind == "buffer")
        return
    owner = _layer(built[""], owner_name, weight.name)
    expected = owner._parameters.get(name) if weight.kind == "parameter" else owner._buffers.get(name)
    if expected is None or weight.kind == "constant":
        raise refuse("unexpected-tensor", f"The layer of {shown(weight.name)} has no such {weight.kind}.")
    if expected.shape != tensor.shape:
        raise Refused(
            "shape-mismatch",
            f"{shown(weight.name)} has the shape {shown(tuple(tensor.shape))}; the arguments of its layer ask for "
            f"{shown(tuple(expected.shape))}.",
            f"Put a new layer of the right size in the model instead of changing its tensor, then: {PACK_COMMAND}",
        )
    if expected.is_floating_point() != tensor.is_floating_point():
        raise refuse("dtype-mismatch", f"{shown(weight.name)} is {shown(str(tensor.dtype))}, which its layer is not.")
    setattr(owner, name, tensor)


def _layer(model: nn.Module, owner_name: str, tensor_name: str) -> nn.Module:
    try:
        return model.get_submodule(owner_name)
    except AttributeError as error:
        raise refuse("unexpected-tensor", f"There is no layer for {shown(tensor_name)}.") from error


def _check_complete(name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for inner, _ in (*layer.named_parameters(), *layer.named_buffers()):
        if f"{name}.{inner}" not in tensors:
            raise refuse("missing-tensor", f"Layer {shown(name)} lacks its tensor {shown(inner)}.")
