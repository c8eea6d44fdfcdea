"""The safetensors container, read and written byte by byte: a length, a JSON header, the tensors' bytes.

Pure Python, so that a file can be judged without torch; every offset is checked before a byte behind it is believed.
Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from layerscope.models.file_kinds import MAX_HEADER, PACK_COMMAND
from layerscope.models.remedies import IN_FLOATS, SMALLER_FILE, SMALLER_LAYERS
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import Refused

MAX_FILE: Final = 4 * 2**30
MAX_TENSORS: Final = 10_000
MAX_ELEMENTS: Final = 2**30
MAX_DIMENSIONS: Final = 8

ITEM_SIZES: Final[Mapping[str, int]] = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}

Content = tuple[str, tuple[int, ...], bytes | bytearray]
"""A tensor to be written: its safetensors dtype, shape and bytes."""

_BROKEN: Final = f"Write the file again: {PACK_COMMAND}"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its safetensors dtype, its shape, and where its bytes lie after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says: text metadata, tensors by name, and where the tensors' bytes begin."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]
    data_start: int


def shown(value: object) -> str:
    """Return `value` as short plain ASCII, for a message that quotes a file."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def strict_json(raw: bytes, what: str, hint: str = _BROKEN) -> Any:
    """Parse UTF-8 JSON that has no duplicate keys, no NaN, no infinities and no bottomless nesting.

    Raises:
        Refused: `bad-json`; `what` names the text in the message, and `hint` says how to write it.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key occurs twice")
        return table

    def finite(literal: str) -> float:
        number = float(literal)
        if not math.isfinite(number):
            raise ValueError(f"{literal} is no finite number")
        return number

    try:
        return json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise Refused("bad-json", f"The {what} is not valid JSON: {shown(str(error))}.", hint) from error


def read_header(file: BinaryIO, size: int) -> Header:
    """Read and check the header of a safetensors file of `size` bytes; leaves the tensors' bytes unread.

    Raises:
        Refused: `file-too-large`, `not-safetensors`, `header-too-large`, `bad-json`, `bad-header`, `too-many-tensors`,
            `unknown-dtype`, `tensor-too-large`, `bad-offsets`.
    """
    if size > MAX_FILE:
        raise Refused(
            "file-too-large",
            f"The file has {size} bytes; {MAX_FILE} are allowed.",
            SMALLER_FILE,
        )
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= size - 8:
        raise Refused("not-safetensors", "The file does not begin with the length of a safetensors header.", _BROKEN)
    if length > MAX_HEADER:
        raise Refused("header-too-large", f"The header has {length} bytes; {MAX_HEADER} are allowed.", _BROKEN)
    raw = file.read(length)
    if len(raw) != length or not raw.startswith(b"{"):
        raise Refused("not-safetensors", "The file has no safetensors header where one should be.", _BROKEN)
    table = strict_json(raw, "header")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Refused("bad-header", "The metadata in the header is not a table of texts.", _BROKEN)
    if len(table) > MAX_TENSORS:
        raise Refused("too-many-tensors", f"The file has {len(table)} tensors; {MAX_TENSORS} are allowed.", _BROKEN)
    tensors = {name: _entry(name, entry) for name, entry in table.items()}
    _check_offsets(tensors.values(), size - 8 - length)
    return Header(metadata, tensors, 8 + length)


def _entry(name: str, entry: Any) -> TensorEntry:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused("bad-header", f"Tensor {shown(name)} is not described by dtype, shape and data_offsets.", _BROKEN)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise Refused(
            "unknown-dtype",
            f"Tensor {shown(name)} has the dtype {shown(dtype)}; only {', '.join(ITEM_SIZES)} can be read.",
            f"Convert the model, and upload it from Python: {IN_FLOATS}",
        )
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS or not _whole_numbers(offsets) or len(offsets) != 2:
        raise Refused("bad-header", f"Tensor {shown(name)} has no proper shape and offsets.", _BROKEN)
    if max(shape, default=0) > MAX_ELEMENTS or math.prod(shape) > MAX_ELEMENTS:
        raise Refused(
            "tensor-too-large",
            f"Tensor {shown(name)} has the shape {shown(shape)}; {MAX_ELEMENTS} elements are allowed.",
            SMALLER_LAYERS,
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        raise Refused("bad-offsets", f"Tensor {shown(name)} has offsets that do not fit its shape and dtype.", _BROKEN)
    return TensorEntry(dtype, tuple(shape), begin, end)


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_offsets(entries: Iterable[TensorEntry], size: int) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise Refused("bad-offsets", "The tensors in the file overlap or leave gaps between them.", _BROKEN)
        position = entry.end
    if position != size:
        raise Refused("bad-offsets", f"The tensors need {position} bytes; the file has {size} for them.", _BROKEN)


def to_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | bytearray]], metadata: Mapping[str, str]
) -> bytes:
    """Return the one file that holds these tensors and this metadata.

    Larger items first, then by name: every tensor is aligned, and equal contents are equal bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body: list[bytes | bytearray] = []
    position = 0
    for name in sorted(tensors, key=lambda name: (-ITEM_SIZES[tensors[name][0]], name)):
        dtype, shape, content = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(content)]}
        position += len(content)
        body.append(content)
    raw = canonical_json(header)
    raw += b" " * (-len(raw) % 8)
    return b"".join([struct.pack("<Q", len(raw)), raw, *body])
