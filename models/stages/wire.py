"""The values that pass from one stage to the next, as bytes and back: to the same bits and the same layout.

Tensors are those of the Open Inference Protocol with its binary extension: dtype and shape in JSON, numbers little-endian
and outside of it (https://github.com/kserve/open-inference-protocol). The layout travels too, in the parameter
`strides`: torch chooses its kernels by it, and with another one the last bits of what follows would differ. Numbers and
sizes pass as tensors of INT64, FP64 or BOOL with the parameter `kind`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import numpy as np
import torch
from torch import Tensor

from layerscope.schemas.errors import Refused

DATATYPES: Final[Mapping[torch.dtype, str]] = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_DTYPES: Final = {name: dtype for dtype, name in DATATYPES.items()}
_NUMBERS: Final[Mapping[str, tuple[type, torch.dtype]]] = {
    "flag": (bool, torch.bool),
    "whole": (int, torch.int64),
    "real": (float, torch.float64),
}
_MOST_DIMENSIONS: Final = 8
_HINT: Final = "Send what the stage before answered, as it was"


@dataclass(frozen=True, slots=True)
class Sent:
    """A value as it is sent: its entry in the JSON of the protocol, and its bytes."""

    entry: dict[str, Any]
    content: memoryview


def can_be_sent(value: Any) -> bool:
    """Tell whether a value can pass from one stage to another: a tensor, a number, or sizes."""
    return isinstance(value, (Tensor, bool, int, float)) or _are_sizes(value)


def sent(name: str, value: Any) -> Sent:
    """Return a value as it is sent.

    Raises:
        TypeError: it is none of those that `can_be_sent`.
    """
    if isinstance(value, Tensor):
        return _sent_tensor(name, value, {})
    if _are_sizes(value):
        return _sent_tensor(name, torch.tensor(value, dtype=torch.int64), {"kind": "sizes"})
    for kind, (python, dtype) in _NUMBERS.items():  # a bool is an int too, so the order matters
        if isinstance(value, python):
            return _sent_tensor(name, torch.tensor([value], dtype=dtype), {"kind": kind})
    raise TypeError(f"a {type(value).__name__} cannot pass from one stage to another")


def received(entry: Mapping[str, Any], content: bytearray | memoryview) -> Any:
    """Return the value that was sent; a tensor shares the memory of `content`.

    Raises:
        Refused: `bad-tensor`, what the entry says is not what the bytes are.
    """
    shape, parameters = entry.get("shape"), entry.get("parameters", {})
    dtype = _DTYPES.get(str(entry.get("datatype")))
    if dtype is None or not _are_sizes(shape) or not isinstance(parameters, dict) or len(shape) > _MOST_DIMENSIONS:
        raise _bad(entry, "has no dtype, shape and parameters that are known here")
    numbers = math.prod(shape)
    if numbers * dtype.itemsize != len(content):
        raise _bad(entry, f"should have {numbers * dtype.itemsize} bytes, and has {len(content)}")
    if dtype is torch.bool and numbers and np.frombuffer(content, np.uint8).max() > 1:
        raise _bad(entry, "holds booleans that are neither 0 nor 1")
    flat = torch.frombuffer(content, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
    kind = parameters.get("kind")
    if kind is None:
        return flat.as_strided(shape, _strides(entry, shape, parameters))
    if kind == "sizes" and dtype is torch.int64:
        return torch.Size(flat.tolist())
    if kind in _NUMBERS and dtype is _NUMBERS[kind][1] and numbers == 1:
        return _NUMBERS[kind][0](flat.item())
    raise _bad(entry, "is of no kind that is known here")


def _sent_tensor(name: str, value: Tensor, parameters: dict[str, Any]) -> Sent:
    value = value.detach().cpu()
    if not _is_dense(tuple(value.shape), value.stride()):
        value = value.contiguous()
    flat = value.as_strided((value.numel(),), (1,))
    numbers: Any = flat.view(torch.uint8).numpy()
    content = memoryview(numbers) if value.numel() else memoryview(b"")
    entry = {
        "name": name,
        "shape": list(value.shape),
        "datatype": DATATYPES[value.dtype],
        "parameters": {
            "binary_data_size": len(content),
            "strides": ",".join(map(str, value.stride())),
            **parameters,
        },
    }
    return Sent(entry, content)


def _are_sizes(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, tuple | list) and all(type(size) is int and size >= 0 for size in value)


def _strides(entry: Mapping[str, Any], shape: Sequence[int], parameters: Mapping[str, Any]) -> tuple[int, ...]:
    text = parameters.get("strides", "")
    if "strides" not in parameters:
        return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    parts = text.split(",") if isinstance(text, str) and text else []
    if len(parts) != len(shape) or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
        raise _bad(entry, "has strides that do not fit its shape")
    strides = tuple(int(part) for part in parts)
    if not _is_dense(tuple(shape), strides):
        raise _bad(entry, "has strides that do not cover its bytes")
    return strides


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether a tensor fills its memory once: its axes, in some order, lie as those of a contiguous tensor."""
    if 0 in shape:
        return True
    expected = 1
    for size, stride in sorted(
        ((size, stride) for size, stride in zip(shape, strides, strict=True) if size > 1), key=lambda axis: axis[1]
    ):
        if stride != expected:
            return False
        expected *= size
    return True


def _bad(entry: Mapping[str, Any], fault: str) -> Refused:
    return Refused("bad-tensor", f"The tensor {str(entry.get('name'))[:80]!r} {fault}.", _HINT)
