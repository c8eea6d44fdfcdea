"""What a model would cost, before anything of it runs: memory, multiply-adds and shapes, on torch's meta device.

A forward pass on tensors without memory walks the same graph as the real one, and frees each value where that does; a
meter beneath it sees every operation of torch. So the peak of the activations is exact but for what kernels take for
themselves (a convolution's unfolded input, for example) and for the allocator's rounding.

Multiply-adds are those of convolutions and of products of matrices, attention and recurrent layers included; biases,
norms, activations, pooling and resampling count 0. torchinfo counts the parameters of a layer once per image instead
(per output position in convolutions), biases and norms too, and so no attention and only one token in a linear layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from layerscope.models.safe_form.graph_module import SafeModel, assemble, tapped
from layerscope.models.safe_form.graph_nodes import Node
from layerscope.models.safe_form.meter import SMALLER, Meter, RecurrentLayers
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_MISFITS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_OVERFLOW: Final = ("overflow", "too large", "out of range")


@dataclass(frozen=True, slots=True)
class CallCost:
    """One step of the forward pass: a layer, or a function or method that multiplies.

    `name` is the layer's or the function's; `shape` that of the output, or None where it is not one tensor;
    `parameters` are those that no step before has counted.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    multiply_adds: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What a forward pass on one batch costs; `parameters` and `tensor_bytes` count what is shared once."""

    calls: tuple[CallCost, ...]
    batch: int
    parameters: int
    tensor_bytes: int
    """Of the parameters and buffers, as built."""
    activation_bytes: int
    """Of the input and all values alive at once, at the peak."""
    multiply_adds: int
    answer: Tensor = field(compare=False, repr=False)
    """What the model returns, without values."""

    @property
    def memory_bytes(self) -> int:
        """Return the bytes of the model and its activations together."""
        return self.tensor_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class CostBudget:
    """What a forward pass on one batch may cost."""

    memory_bytes: int
    multiply_adds: int


def measure(model: SafeModel, input_shape: tuple[int, int, int], batch: int = 1) -> Costs:
    """Return what `model`, on whichever device, costs for `batch` images of `input_shape` (C, H, W); nothing runs.

    Raises:
        Refused: `input-mismatch` (it does not take such images), `too-much-memory` (a size is beyond any machine),
            `too-much-computation` (more than 20,000 operations, or a tensor cut into more than 16,384), or
            `unknown-cost` (its sizes depend on the values of its input).
    """
    bare = _on_meta(model)
    meter = Meter(bare)
    calls = _Calls(bare, meter)
    images = torch.empty((batch, *input_shape), device="meta")
    with _refusals(calls, input_shape), tapped(bare, calls.taps), torch.no_grad(), meter, RecurrentLayers(meter):
        meter.hold(images)
        answer = bare(images)
    return Costs(
        calls=tuple(calls.rows),
        batch=batch,
        parameters=sum(parameter.numel() for parameter in bare.parameters()),
        tensor_bytes=meter.tensor_bytes,
        activation_bytes=meter.peak_bytes,
        multiply_adds=meter.multiply_adds,
        answer=answer,
    )


def check(costs: Costs, budget: CostBudget) -> None:
    """Check that a model costs no more than it may.

    Raises:
        Refused: `too-much-memory`, `too-much-computation`; both say the numbers.
    """
    if costs.memory_bytes > budget.memory_bytes:
        raise Refused(
            "too-much-memory",
            f"For {costs.batch} images the model needs {_mib(costs.memory_bytes)} MiB, {_mib(costs.tensor_bytes)} for its "
            f"tensors and {_mib(costs.activation_bytes)} for its activations; {_mib(budget.memory_bytes)} MiB are allowed.",
            SMALLER,
        )
    if costs.multiply_adds > budget.multiply_adds:
        dearest = max(costs.calls, key=lambda call: call.multiply_adds)
        raise Refused(
            "too-much-computation",
            f"For {costs.batch} images the model takes {_giga(costs.multiply_adds)} billion multiply-adds, "
            f"{_giga(dearest.multiply_adds)} of them in {shown(dearest.name)}; {_giga(budget.multiply_adds)} are allowed.",
            SMALLER,
        )


def _mib(size: int) -> str:
    return f"{-(-size // 2**20):,}"


def _giga(count: int) -> str:
    return f"{count / 1e9:,.3f}"


def _on_meta(model: SafeModel) -> SafeModel:
    """Return the same model without memory; what one layer had attached, such as hooks, is not there."""

    def tensor_of(name: str) -> Tensor:
        owner, _, leaf = name.rpartition(".")
        tensor: Tensor = getattr(model.get_submodule(owner), leaf)
        return torch.empty_like(tensor, device="meta")

    return assemble(model.safe_graph, tensor_of)


class _Calls:
    """Writes down what each step of the graph cost, from what the meter shows after it."""

    def __init__(self, model: SafeModel, meter: Meter) -> None:
        self.rows: list[CallCost] = []
        self.under_way = model.safe_graph.nodes[0]
        """The step that is being computed, for a message."""
        self._model = model
        self._meter = meter
        self._seen = 0
        self._counted: set[int] = set()
        self._nodes = model.safe_graph.nodes
        self.taps = {index: self._tap(index) for index in range(len(self._nodes))}

    def _tap(self, index: int) -> Callable[[Any], None]:
        def after(value: Any) -> None:
            self._write(self._nodes[index], value)
            self.under_way = self._nodes[min(index + 1, len(self._nodes) - 1)]

        return after

    def _write(self, node: Node, value: Any) -> None:
        new, self._seen = self._meter.multiply_adds - self._seen, self._meter.multiply_adds
        parameters = list(self._parameters(node))
        if not (node.operation == "layer" or new or parameters):
            return
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
        self.rows.append(CallCost(node.target, self._kind(node), shape, new, sum(map(Tensor.numel, parameters))))

    def _kind(self, node: Node) -> str:
        return type(self._model.get_submodule(node.target)).__name__ if node.operation == "layer" else node.operation

    def _parameters(self, node: Node) -> Iterator[nn.Parameter]:
        """Yield the parameters that this step is the first to use."""
        owned: list[nn.Parameter] = []
        if node.operation == "layer":
            owned = list(self._model.get_submodule(node.target).parameters())
        elif node.operation == "tensor":
            owner, _, name = node.target.rpartition(".")
            owned = [
                value for key, value in self._model.get_submodule(owner).named_parameters(recurse=False) if key == name
            ]
        for parameter in owned:
            if id(parameter) not in self._counted:
                self._counted.add(id(parameter))
                yield parameter


@contextlib.contextmanager
def _refusals(calls: _Calls, input_shape: tuple[int, int, int]) -> Iterator[None]:
    """Turn what goes wrong on the meta device into what it means for the model."""
    try:
        yield
    except _MISFITS as error:
        node, reason = calls.under_way, (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        step = f"at {shown(node.target)}" if node.target else f"at a step of the kind {node.operation}"
        if not isinstance(error, IndexError) and any(sign in str(error) for sign in _OVERFLOW):
            raise Refused("too-much-memory", f"A size is beyond any machine {step} ({reason}).", SMALLER) from error
        if isinstance(error, NotImplementedError):
            message = f"What the model costs depends on the values of its input {step} ({reason})."
            raise Refused("unknown-cost", message, "Choose by position instead of by value in forward") from error
        message = f"The model does not take images of the shape {input_shape} (C, H, W): it fails {step} ({reason})."
        hint = "Upload it under the dataset that it was trained on; `layerscope datasets list` shows them."
        raise Refused("input-mismatch", message, hint) from error
