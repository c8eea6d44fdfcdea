"""What a forward pass does beneath its layers: operations of torch on the meta device, seen one by one.

Part of `costs`. What is alive is known by the storages that tensors share, so a view costs nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerscope.schemas.errors import Refused

MAX_OPERATIONS: Final = 20_000
MAX_PIECES: Final = 16_384
SMALLER: Final = "Make its layers or its input smaller, or ask the operator for larger limits"


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of a forward pass: adds up multiply-adds, and the bytes of the storages that are alive."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0
        self.peak_bytes = 0
        self._alive_bytes = 0
        self._operations = 0
        tensors = (*model.parameters(), *model.buffers())
        storages = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}
        self._held = set(storages)
        self.tensor_bytes = sum(storage.nbytes() for storage in storages.values())

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of a tensor as long as it lives, unless it is one of the model's own."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._held:
            return
        self._held.add(storage._cdata)
        self._alive_bytes += storage.nbytes()
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, self._alive_bytes)

    def _release(self, key: int, size: int) -> None:
        self._held.remove(key)
        self._alive_bytes -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operations += 1
        if self._operations > MAX_OPERATIONS or _pieces(func, *args, **(kwargs or {})) > MAX_PIECES:
            raise Refused(
                "too-much-computation",
                f"The model takes more than {MAX_OPERATIONS:,} operations, or cuts a tensor into more than "
                f"{MAX_PIECES:,} pieces.",
                SMALLER,
            )
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self.hold(output)
        if (count := _COUNTS.get(func.overloadpacket)) is not None:
            self.multiply_adds += count(outputs, *args)
        return outputs


def _pieces(func: Any, *args: Any, **kwargs: Any) -> int:
    """Return into how many views an operation cuts its tensor; 0 where it does no such thing."""
    name = func.overloadpacket.__name__
    if name not in ("unbind", "split", "unsafe_split", "chunk", "unsafe_chunk"):
        return 0
    along = kwargs.get("dim", args[-1] if len(args) > (1 if name == "unbind" else 2) else 0)
    size = args[0].shape[along]
    if name == "unbind":
        return int(size)
    number = args[1]
    return int(number if name.endswith("chunk") else -(-size // max(1, number)))


def _product(outputs: Tensor, left: Tensor, right: Tensor, *_: Any) -> int:
    """Of (…, n, k) with (…, k, m), or with a vector."""
    return outputs.numel() * left.shape[-1]


def _product_added(outputs: Tensor, added: Tensor, left: Tensor, right: Tensor, *_: Any) -> int:
    return outputs.numel() * left.shape[-1]


def _product_summed(outputs: Tensor, added: Tensor, left: Tensor, right: Tensor, *_: Any) -> int:
    return left.numel() * right.shape[-1]


def _convolution(outputs: Tensor, inputs: Tensor, weight: Tensor, *rest: Any) -> int:
    """Each value of the weight meets each position of the output, or, transposed, of the input."""
    transposed = rest[4]
    positions = (inputs if transposed else outputs).shape
    return weight.numel() * positions[0] * prod(positions[2:])


def _bilinear(outputs: Tensor, *tensors_and_axes: Any) -> int:
    first, second, third, *axes = tensors_and_axes[:6]
    spread = []
    for tensor, expanded in zip((first, second, third), axes, strict=True):
        for axis in expanded:
            tensor = tensor.unsqueeze(axis)  # noqa: PLW2901
        spread.append(tensor.shape)
    return prod(torch.broadcast_shapes(*spread))  # type: ignore[no-untyped-call]


_aten: Final = torch.ops.aten
_COUNTS: Final[Mapping[Any, Callable[..., int]]] = {
    _aten.mm: _product,
    _aten.bmm: _product,
    _aten.mv: _product,
    _aten.dot: _product,
    _aten.addmm: _product_added,
    _aten.addmv: _product_added,
    _aten.baddbmm: _product_added,
    _aten.addbmm: _product_summed,
    _aten.convolution: _convolution,
    _aten._trilinear: _bilinear,
}


class RecurrentLayers(TorchFunctionMode):
    """Takes recurrent layers in one step, instead of some twenty operations for each step of their sequences.

    Each weight meets each step of each sequence; the gates of all steps of one layer are alive together.
    """

    _CALLS: Final = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self._CALLS:
            return func(*args, **(kwargs or {}))
        inputs, state, weights, *_ = args
        states = [state] if isinstance(state, Tensor) else list(state)
        directions = 2 if args[7] else 1
        steps = inputs.shape[0] * inputs.shape[1]
        matrices = [weight for weight in weights if weight.ndim == 2]
        self._meter.multiply_adds += steps * sum(map(Tensor.numel, matrices))
        gates = inputs.new_empty((steps, directions * max(len(weight) for weight in matrices)))
        outputs = gates.new_empty((*inputs.shape[:2], directions * states[0].shape[-1]))
        return outputs, *(one.clone() for one in states)
