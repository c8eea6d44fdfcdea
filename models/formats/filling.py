"""From the tensors of a file to those of torch, and into a module that was made without memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

COUNTER: Final = "num_batches_tracked"
"""Counts batches in training; torch before 0.4.1 did not store it, and no output depends on it."""


_in_place: ContextVar[bool] = ContextVar("in_place", default=False)


@contextmanager
def in_place() -> Iterator[None]:
    """Make tensors of the file's bytes where they lie, for one who is done with them before anybody changes the file."""
    before = _in_place.set(True)
    try:
        yield
    finally:
        _in_place.reset(before)


class TorchTensors:
    """Makes torch tensors of stored ones, each once, so that what was tied in the file is tied again."""

    def __init__(self) -> None:
        """Begin with none."""
        self._made: dict[tuple[object, ...], Tensor] = {}

    def get(self, stored: StoredTensor) -> Tensor:
        """Return a tensor, or a parameter, of the same dtype, shape and values, in memory of its own but `in_place`."""
        tie = (stored.storage, stored.offset, stored.shape, stored.strides, stored.dtype, stored.parameter)
        if tie not in self._made:
            self._made[tie] = _to_torch(stored)
        return self._made[tie]


def _to_torch(stored: StoredTensor) -> Tensor:
    if _in_place.get():
        array = np.require(stored.array, requirements=("C", "ALIGNED", "WRITEABLE"))
    else:
        array = np.array(stored.array, order="C")
    tensor = torch.from_numpy(array)
    if stored.dtype == "BF16":
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if stored.parameter:
        return nn.Parameter(tensor, stored.requires_grad and tensor.is_floating_point())
    return tensor


def to_torch(tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Return the tensors of a state dict as torch's; those that were tied are one."""
    made = TorchTensors()
    return {name: made.get(stored) for name, stored in tensors.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Give a module, made on the meta device, the tensors that its `state_dict` names, and return it.

    Counters of batches may be missing; nothing else may, and nothing may be left over.

    Raises:
        Refused: `missing-tensor`, `unexpected-tensor`, `shape-mismatch`, `dtype-mismatch`.
    """
    expected = module.state_dict(keep_vars=True)
    if unexpected := next((name for name in tensors if name not in expected), None):
        raise Refused("unexpected-tensor", f"The architecture has no tensor {shown(unexpected)}.", UPLOAD_CALL)
    for name, place in expected.items():
        owner, _, leaf = name.rpartition(".")
        put(module.get_submodule(owner), leaf, place, tensors.get(name), name)
    return module


def put(owner: nn.Module, leaf: str, place: Tensor, tensor: Tensor | None, name: str) -> None:
    """Put a tensor in the place of a parameter or buffer of a layer; `name` is the whole name, for messages.

    Raises:
        Refused: `missing-tensor`, `shape-mismatch`, `dtype-mismatch`.
    """
    if tensor is None:
        if leaf != COUNTER:
            raise Refused("missing-tensor", f"The file lacks the tensor {shown(name)}.", UPLOAD_CALL)
        tensor = torch.zeros(tuple(place.shape), dtype=place.dtype)
    if tensor.shape != place.shape:
        raise Refused(
            "shape-mismatch",
            f"{shown(name)} has the shape {shown(tuple(tensor.shape))}; its layer asks for {shown(tuple(place.shape))}.",
            UPLOAD_CALL,
        )
    if tensor.is_floating_point() != place.is_floating_point():
        raise Refused(
            "dtype-mismatch", f"{shown(name)} is {shown(str(tensor.dtype))}, which its layer is not.", UPLOAD_CALL
        )
    if isinstance(place, nn.Parameter):
        owner._parameters[leaf] = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
    else:
        owner._buffers[leaf] = tensor.detach()
