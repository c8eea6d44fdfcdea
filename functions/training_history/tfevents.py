"""From a TensorBoard event file to rows of scalars: framed records with checksums, in each a small protobuf message.

Framing (TFRecord): length u64, masked CRC-32C of it, data, masked CRC-32C of that, little-endian. In the messages only
what a scalar needs is looked at: Event {2: step, 5: summary}, Summary {1: value}, Value {1: tag, 2: simple_value,
8: tensor}, TensorProto {1: dtype, 4: content, 5: float_val, 6: double_val}; the rest is stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import crc32c

from layerscope.functions.training_history.log_tables import MAX_COLUMNS, MAX_NAME, MAX_ROWS, LogRow, bad_history

STEP: Final = "step"
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FORMATS: Final = {1: ("<f", 4), 2: ("<d", 8)}
"""How a number of a tensor's dtype is packed, and its size."""
Field = tuple[int, int, int | bytes]
"""Number, wire type and value; fixed-size values as their bytes."""


def read_scalars(content: bytes) -> list[LogRow]:
    """Return one row a step, in order; of several values of a tag at a step the last, as after a restart.

    A record that is cut off at the end is left out: the writer may have been killed.

    Raises:
        Refused: `bad-history`.
    """
    rows: dict[int, dict[str, float]] = {}
    tags: set[str] = set()
    for record in _records(content):
        step, scalars = _event(record)
        for tag, value in scalars:
            tags.add(tag)
            rows.setdefault(step, {STEP: float(step)})[tag] = value
        if len(rows) > MAX_ROWS or len(tags) > MAX_COLUMNS:
            raise bad_history(f"it has more than {MAX_ROWS:,} steps or {MAX_COLUMNS:,} tags")
    return [rows[step] for step in sorted(rows)]


def _records(content: bytes) -> Iterator[bytes]:
    at = 0
    while at + 12 <= len(content):
        length, checksum = struct.unpack_from("<QI", content, at)
        if _masked(content[at : at + 8]) != checksum:
            raise bad_history(f"the record at byte {at} has a wrong checksum, or this is no event file")
        end = at + 12 + length
        if end + 4 > len(content):
            return
        data = content[at + 12 : end]
        if _masked(data) != struct.unpack_from("<I", content, end)[0]:
            raise bad_history(f"the record at byte {at} has a wrong checksum")
        yield data
        at = end + 4


def _masked(data: bytes) -> int:
    checksum = crc32c.crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _event(record: bytes) -> tuple[int, list[tuple[str, float]]]:
    step, scalars = 0, []
    for number, wire, value in _fields(record):
        if number == 2 and wire == _VARINT and isinstance(value, int):
            step = value if value < 2**63 else value - 2**64
        elif number == 5 and wire == _BYTES and isinstance(value, bytes):
            found = (_scalar(one) for n, w, one in _fields(value) if n == 1 and w == _BYTES and isinstance(one, bytes))
            scalars += [one for one in found if one is not None]
    return step, scalars


def _scalar(message: bytes) -> tuple[str, float] | None:
    tag, value = "", None
    for number, wire, content in _fields(message):
        if not isinstance(content, bytes):
            continue
        if number == 1 and wire == _BYTES:
            tag = content[:MAX_NAME].decode("utf-8", "replace")
        elif number == 2 and wire == _FOUR:
            (value,) = struct.unpack("<f", content)
        elif number == 8 and wire == _BYTES:
            value = _tensor(content)
    return None if value is None else (tag, float(value))


def _tensor(message: bytes) -> float | None:
    """Return the one number that a tensor holds; None where it holds none or several."""
    fields = {number: value for number, _, value in _fields(message)}
    dtype = fields.get(1)
    form, size = _FORMATS.get(dtype if isinstance(dtype, int) else 0, ("", 0))
    for value in (fields.get(number) for number in (4, 5, 6)):
        if size and isinstance(value, bytes) and len(value) == size:
            return float(struct.unpack(form, value)[0])
    return None


def _fields(message: bytes) -> Iterator[Field]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, wire, value
            continue
        size, at = _varint(message, at) if wire == _BYTES else ({_EIGHT: 8, _FOUR: 4}.get(wire, -1), at)
        if size < 0 or at + size > len(message):
            raise bad_history("one of its records is no protobuf message")
        yield tag >> 3, wire, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(message):
            break
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise bad_history("one of its records is no protobuf message")
