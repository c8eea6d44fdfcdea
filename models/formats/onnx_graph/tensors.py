"""The tensors of an ONNX file as NumPy arrays: in the file itself, of a known type, and as long as their shape says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto

from layerscope.models.formats.onnx_graph.refusals import PACK_HINT, refused
from layerscope.models.safe_form.safetensors_file import MAX_DIMENSIONS, MAX_ELEMENTS, shown
from layerscope.schemas.errors import Refused

Array = NDArray[Any]

MAX_SHOWN: Final = 64

_EMBED_HINT: Final = (
    "Put the weights into the file: python -c \"import onnx; onnx.save(onnx.load('model.onnx'), 'whole.onnx')\""
)
_DTYPES: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.UINT8: "u1",
    TensorProto.INT8: "i1",
    TensorProto.UINT16: "<u2",
    TensorProto.INT16: "<i2",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.BOOL: "?",
    TensorProto.FLOAT16: "<f2",
    TensorProto.DOUBLE: "<f8",
    TensorProto.BFLOAT16: "<u2",
}
_LISTS: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
}
"""The field that holds a tensor's values one by one; the other types share `int32_data`."""


def initializers(graph: GraphProto) -> dict[str, Array]:
    """Return the tensors of a file by name.

    Raises:
        Refused: `duplicate-name`, and as of `to_array`.
    """
    tensors: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in tensors:
            raise refused("duplicate-name", f"Two tensors have the name {shown(tensor.name)}.")
        tensors[tensor.name] = to_array(tensor)
    return tensors


def to_array(tensor: TensorProto) -> Array:
    """Return the values of a tensor; they are in the file itself, and as many as its shape says.

    Raises:
        Refused: `external-data`, `unknown-dtype`, `bad-tensor`.
    """
    name, shape = shown(tensor.name[:MAX_SHOWN]), tuple(tensor.dims)
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise Refused("external-data", f"The values of tensor {name} are in another file.", _EMBED_HINT)
    if tensor.data_type not in _DTYPES:
        raise Refused("unknown-dtype", f"Tensor {name} has the ONNX type {tensor.data_type}.", PACK_HINT)
    if (
        len(shape) > MAX_DIMENSIONS
        or any(not 0 <= size <= MAX_ELEMENTS for size in shape)
        or tensor.HasField("segment")
    ):
        raise refused("bad-tensor", f"Tensor {name} has the shape {shown(shape)}, which is not allowed.")
    count, dtype = math.prod(shape), np.dtype(_DTYPES[tensor.data_type])
    values = _values(tensor, dtype)
    if values is None or values.size != count:
        raise refused("bad-tensor", f"Tensor {name} has the shape {shown(shape)}, but not as many values.")
    if tensor.data_type == TensorProto.BFLOAT16:
        values = (values.astype("<u4") << 16).view("<f4")
    return values.reshape(shape)


def _values(tensor: TensorProto, dtype: np.dtype[Any]) -> Array | None:
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) % dtype.itemsize:
            return None
        if dtype.kind == "b":
            return np.asarray(np.frombuffer(raw, "u1") != 0)
        return np.frombuffer(raw, dtype)
    listed: Array = np.array(getattr(tensor, _LISTS.get(tensor.data_type, "int32_data")))
    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        listed = listed.astype("<u2").view(dtype)  # their bits, as whole numbers
    return np.asarray(listed, dtype)
