"""A walk over the bytes of a protobuf message, before they are parsed: how much the parser would have to make of them.

An empty message in a list takes two bytes in the file and a hundred in memory, so a small file could fill it. Which
fields hold messages is read from the schema. Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from layerscope.schemas.errors import Refused

MAX_FIELDS: Final = 250_000
MAX_PACKED: Final = 64 * 2**20
"""Bytes in packed lists of small numbers, each of which grows to eight bytes."""
MAX_DEPTH: Final = 16

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_PLAIN: Final = frozenset({1, 2, 12})
"""double, float and bytes: what takes as much memory as it does in the file."""
_TEXT, _MESSAGE = 9, 11


class _Scan:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = self._packed = 0
        self._tables: dict[str, dict[int, Any]] = {}

    def message(self, begin: int, end: int, schema: Any, depth: int) -> None:
        """Walk over the fields of one message and of those inside it."""
        if depth > MAX_DEPTH:
            raise _refused("too-deep", f"Its messages are nested deeper than {MAX_DEPTH}")
        table = self._table(schema)
        while begin < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise _refused("too-many-nodes", f"It has more than {MAX_FIELDS:,} entries")
            tag, begin = self._varint(begin, end)
            begin, length = self._skip(begin, end, tag & 7)
            field = table.get(tag >> 3)
            if tag & 7 != _BYTES or field is None or field.type in _PLAIN:
                continue
            if field.type == _TEXT:
                self._text(begin - length, begin)
            elif field.type == _MESSAGE:
                self.message(begin - length, begin, field.message_type, depth + 1)
            else:
                self._packed += length
                if self._packed > MAX_PACKED:
                    raise _refused("too-large", f"It has more than {MAX_PACKED >> 20} MB of lists of small numbers")

    def _text(self, begin: int, end: int) -> None:
        try:
            self._data[begin:end].decode()
        except UnicodeDecodeError as error:  # the parser would hand it on as bytes
            raise _refused("not-onnx", "A name in it is no text") from error

    def _table(self, schema: Any) -> Mapping[int, Any]:
        if schema.full_name not in self._tables:
            self._tables[schema.full_name] = dict(schema.fields_by_number)
        return self._tables[schema.full_name]

    def _skip(self, begin: int, end: int, wire: int) -> tuple[int, int]:
        """Return where the value that begins here ends, and the length of its content."""
        length = 0
        if wire == _VARINT:
            begin = self._varint(begin, end)[1]
        elif wire == _BYTES:
            length, begin = self._varint(begin, end)
        elif wire in (_EIGHT, _FOUR):
            length = 8 if wire == _EIGHT else 4
        else:
            raise _refused("not-onnx", "Its bytes are no protobuf message")
        if length > end - begin:
            raise _refused("not-onnx", "It ends in the middle of a value")
        return begin + length, length

    def _varint(self, begin: int, end: int) -> tuple[int, int]:
        if begin < end and self._data[begin] < 0x80:
            return self._data[begin], begin + 1
        value = 0
        for place, at in enumerate(range(begin, min(begin + 10, end))):
            byte = self._data[at]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value, at + 1
        raise _refused("not-onnx", "It ends in the middle of a number")


def scan(data: bytes, schema: Any) -> None:
    """Check that `data` can be a message of this schema (a protobuf descriptor), within a budget of fields.

    Raises:
        Refused: `not-onnx`, `too-many-nodes`, `too-deep`, `too-large`.
    """
    _Scan(data).message(0, len(data), schema, 0)


def _refused(code: str, what: str) -> Refused:
    return Refused(
        code,
        f"The file cannot be read as ONNX: {what[0].lower()}{what[1:]}.",
        "Export the model again: torch.onnx.export(model, (images,), 'model.onnx', external_data=False)",
    )
