"""The opcodes of a pickle, one after the other, each with its argument: read within bounds, and nothing done yet.

What each opcode means is in `machine`; the format: https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from layerscope.models.formats.pickle_values import unreadable

MAX_STEPS: Final = 1_000_000
MAX_DEAR_KEYS: Final = 4096
"""Numbers above PLAIN_NUMBER, fractions and parts of tuples as keys: Python hashes these without a secret, so that a file
could hold many that all collide, each then compared with all before it."""
PLAIN_NUMBER: Final = 2**24
"""Too few whole numbers lie below it for many of them to collide."""
MAX_MEMORY: Final = 128 * 2**20
"""For all that is made of one file, but for its tensors, which stay where they are."""
MAX_TEXT: Final = 4 * 2**20
MAX_BYTES: Final = 16 * 2**20
MAX_LONG: Final = 255
MAX_NAME: Final = 200


class ReadBudget:
    """What the reading of one file may still cost, in steps and bytes: never in time, for a machine may be slow for a while."""

    def __init__(self) -> None:
        self._steps, self._memory, self._dear_keys = MAX_STEPS, MAX_MEMORY, MAX_DEAR_KEYS

    def count(self) -> None:
        """Count one opcode or one item; raises Refused: `too-many-nodes`."""
        self._steps -= 1
        if self._steps < 0:
            raise unreadable("too-many-nodes", f"The pickle has more than {MAX_STEPS} steps and values.")

    def dear_keys(self, count: int) -> None:
        """Count keys, or parts of one, that may collide; raises Refused: `too-many-nodes`."""
        self._dear_keys -= count
        if self._dear_keys < 0:
            message = f"The pickle has more than {MAX_DEAR_KEYS} large numbers, fractions or parts of tuples as keys."
            raise unreadable("too-many-nodes", message)

    def spend(self, size: int) -> None:
        """Take `size` bytes of memory; raises Refused: `too-large`."""
        self._memory -= size
        if self._memory < 0:
            raise unreadable("too-large", f"What the pickle holds besides tensors needs more than {MAX_MEMORY} bytes.")


class Opcodes:
    """The opcodes of `data` from `position` on; `position` is after the last one given."""

    def __init__(self, data: memoryview, budget: ReadBudget, position: int = 0) -> None:
        self.position = position
        self._data = data
        self._budget = budget

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Give opcodes and their arguments, up to and with STOP; raises Refused: `truncated`, `bad-opcode`, `too-large`, …."""
        opcode, arguments, count, data = 0, _ARGUMENTS, self._budget.count, self._data
        while opcode != _STOP:
            count()
            if self.position >= len(data):
                raise unreadable("truncated", "The pickle ends before it is complete.")
            opcode = data[self.position]
            self.position += 1
            if opcode not in arguments:
                raise unreadable("bad-opcode", f"The pickle has the opcode 0x{opcode:02x}, which is not read here.")
            argument = arguments[opcode]
            yield opcode, argument and argument(self)

    def take(self, size: int) -> memoryview:
        """Return the next `size` bytes."""
        begin, self.position = self.position, self.position + size
        if self.position > len(self._data):
            raise unreadable("truncated", "The pickle ends before it is complete.")
        return self._data[begin : self.position]

    def counted(self, size: int, limit: int) -> bytes:
        """Return the next `size` bytes, a copy that costs what it takes as text or number."""
        if size > limit:
            raise unreadable("too-large", f"The pickle announces a value of {size} bytes; {limit} are allowed.")
        raw = bytes(self.take(size))
        self._budget.spend(64 + (size if raw.isascii() else 4 * size))
        return raw

    def line(self) -> str:
        """Return what stands before the next line end."""
        window = bytes(self._data[self.position : self.position + MAX_NAME + 1])
        line, end, _ = window.partition(b"\n")
        if not end:
            raise unreadable("bad-pickle", f"A name in the pickle has no end within {MAX_NAME} bytes.")
        self.position += len(line) + 1
        return _decoded(line)

    def frame(self, size: int) -> None:
        """Check the announcement of `size` bytes, which is nothing but that."""
        if size > len(self._data) - self.position:
            raise unreadable("truncated", f"The pickle announces a frame of {size} bytes, but is shorter.")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise unreadable("bad-pickle", "A text in the pickle is not valid UTF-8.") from error


Argument = Callable[[Opcodes], Any]


def _number(layout: str) -> Argument:
    form = struct.Struct(layout)
    return lambda source: form.unpack(source.take(form.size))[0]


def _counted(length: Argument, limit: int, decode: Callable[[bytes], Any]) -> Argument:
    return lambda source: decode(source.counted(length(source), limit))


def _long(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


_STOP: Final = ord(".")
_1, _2, _4, _8 = (_number(layout) for layout in ("<B", "<H", "<I", "<Q"))
_ARGUMENTS: Final[Mapping[int, Argument | None]] = {
    **dict.fromkeys(b".(NRQabeu])}st\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94"),
    **dict.fromkeys(b"\x80Khq", _1),
    ord("M"): _2,
    **dict.fromkeys(b"jr", _4),
    ord("J"): _number("<i"),
    ord("G"): _number(">d"),
    ord("X"): _counted(_4, MAX_TEXT, _decoded),
    0x8C: _counted(_1, MAX_TEXT, _decoded),
    0x8D: _counted(_8, MAX_TEXT, _decoded),
    ord("B"): _counted(_4, MAX_BYTES, bytes),
    ord("C"): _counted(_1, MAX_BYTES, bytes),
    0x8E: _counted(_8, MAX_BYTES, bytes),
    0x96: _counted(_8, MAX_BYTES, bytes),
    0x8A: _counted(_1, MAX_LONG, _long),
    0x8B: _counted(_4, MAX_LONG, _long),
    ord("c"): lambda source: (source.line(), source.line()),
    0x95: lambda source: source.frame(_8(source)),
}
