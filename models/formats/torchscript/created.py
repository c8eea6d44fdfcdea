"""Tensors that a trace or an exported program makes of plain numbers, such as positions or zeros: constants from then on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from layerscope.models.file_kinds import UPLOAD
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.torchscript.calls import Value
from layerscope.schemas.errors import Refused

MOST: Final = 2**22
"""Elements, of one and of all. A mask of 1,024 by 1,024 positions has a quarter of that."""
AXES: Final = 8
CREATING: Final = frozenset({"arange", "full", "ones", "scalar_tensor", "zeros"})

_TYPES: Final[Mapping[int, tuple[str, type[np.generic]]]] = {
    0: ("U8", np.uint8),
    1: ("I8", np.int8),
    2: ("I16", np.int16),
    3: ("I32", np.int32),
    4: ("I64", np.int64),
    5: ("F16", np.float16),
    6: ("F32", np.float32),
    7: ("F64", np.float64),
    11: ("BOOL", np.bool_),
}
"""By the numbers that traces have for dtypes."""
_FLOAT, _WHOLE, _BOOL = 6, 4, 11
_FAR: Final = 2**53


def created(name: str, args: list[Value], kwargs: Mapping[str, Value]) -> StoredTensor | None:
    """Return the tensor that an operator of `CREATING` makes; None where not all that it is given are numbers.

    Raises:
        Refused: as of `too_large`.
    """
    if not all(_is_plain(value) for value in args):
        return None
    made = _arange(args) if name == "arange" else _filled(name, args)
    if made is None:
        return None
    shape, fill = made
    given = kwargs.get("dtype")
    number = given if type(given) is int else _natural(fill)
    if number not in _TYPES or len(shape) > AXES:
        return None
    if max(shape, default=0) > MOST or math.prod(shape) > MOST:
        raise too_large(math.prod(shape))
    dtype, kind = _TYPES[number]
    with np.errstate(invalid="ignore", over="ignore"):  # a number that the dtype cannot have is torch's to choose
        array = np.broadcast_to(np.asarray(fill), shape).astype(kind)
    storage = (
        f"created {hashlib.sha256(array.tobytes()).hexdigest()}"  # what is equal is one tensor, and no more than that
    )
    return StoredTensor(dtype, shape, array, False, False, storage, 0, ())


def too_large(numbers: int) -> Refused:
    """Return the refusal of a program that makes more of numbers than positions and masks need."""
    return Refused(
        "too-large-constant",
        f"The model makes tensors of {numbers:,} numbers in its forward pass; {MOST:,} are allowed.",
        f"Register them as buffers of the module: self.register_buffer('name', tensor). Then upload it from Python: {UPLOAD}",
    )


def _is_plain(value: Value) -> bool:
    if isinstance(value, list):
        return all(type(one) is int and one >= 0 for one in value)
    return type(value) in (bool, int, float) and math.isfinite(value) and abs(value) <= _FAR


def _arange(args: list[Value]) -> tuple[tuple[int, ...], npt.NDArray[Any]] | None:
    start, end, step = {1: (0, *args, 1), 2: (*args, 1), 3: tuple(args)}.get(len(args), (0, 0, 0))
    if not step or any(isinstance(one, list) for one in (start, end, step)):
        return None
    steps = (end - start) / step
    count = max(0, math.ceil(steps)) if steps <= MOST else MOST + 1
    return (count,), start + step * np.arange(count) if count <= MOST else np.zeros(())


def _filled(name: str, args: list[Value]) -> tuple[tuple[int, ...], Value] | None:
    match name, args:
        case "scalar_tensor", [bool() | int() | float() as value]:
            return (), float(value)
        case "full", [list() as shape, bool() | int() | float() as value]:
            return tuple(shape), value
        case "ones" | "zeros", [list() as shape]:
            return tuple(shape), float(name == "ones")
    return None


def _natural(fill: Any) -> int:
    """Return the dtype that torch gives numbers where none is asked for."""
    kind = np.asarray(fill).dtype.kind
    return {"b": _BOOL, "i": _WHOLE}.get(kind, _FLOAT)
