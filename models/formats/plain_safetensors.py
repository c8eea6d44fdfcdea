"""Reads a safetensors file without an architecture as what it is: a state dict."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.safe_form.safetensors_file import read_header, shown
from layerscope.schemas.errors import Refused

_NUMPY: Final[Mapping[str, str]] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_HINT: Final = "Write the file again: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file says of itself in words.

    Raises:
        Refused: as of `safetensors_file.read_header`.
    """
    with path.open("rb") as file:
        return dict(read_header(file, path.stat().st_size).metadata)


def read_plain(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name: views of the file, which is mapped.

    The file does not keep the order of the layers: `state_dicts.unwrap(…, ordered=False)`.

    Raises:
        Refused: as of `safetensors_file.read_header`; and `bad-value`.
    """
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.tensors.items():
        dtype = np.dtype(_NUMPY[entry.dtype])
        array = np.frombuffer(data, dtype, math.prod(entry.shape), header.data_start + entry.begin)
        if entry.dtype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
            raise Refused("bad-value", f"Tensor {shown(name)} holds booleans that are neither 0 nor 1.", _HINT)
        strides = tuple(math.prod(entry.shape[axis + 1 :]) for axis in range(len(entry.shape)))
        tensors[name] = StoredTensor(
            entry.dtype,
            entry.shape,
            array.reshape(entry.shape),
            parameter=False,
            requires_grad=False,
            storage=name,
            offset=0,
            strides=strides,
        )
    return tensors
