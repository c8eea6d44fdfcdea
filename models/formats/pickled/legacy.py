"""The stream of torch.save before 1.6: pickles one after the other, then the bytes of the storages."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from layerscope.models.formats.pickle_values import Global, Value, quoted, unreadable
from layerscope.models.formats.pickled.calls import PLAIN
from layerscope.models.formats.pickled.machine import Machine
from layerscope.models.formats.pickled.opcodes import ReadBudget
from layerscope.models.formats.pickled.tensors import Declared, PickledTensors, declared

MAGIC: Final = 0x1950A86A20F9469CFC6C
PROTOCOL: Final = 1001
_FIRST: Final = 64
"""Bytes within which the number is that torch.save begins with, whatever the protocol."""
_NOT_TORCH: Final = "This is a pickle, but not one that torch.save wrote."
_COUNT: Final = struct.Struct("<q")


def read_stream(data: memoryview) -> tuple[Value, set[Global]]:
    """Return what the stream describes, and the names in it that nothing was made of.

    The storages come last, and their sizes are known only from the pickle: it is read once for these, its tensors inert,
    and once more when their places are known.

    Raises:
        Refused: `not-torch`, `big-endian`, `bad-tensor`, `truncated`; and as of `Machine.run` and `PickledTensors`.
    """
    budget = ReadBudget()
    announced: dict[str, Declared] = {}

    def announce(saved_id: Value) -> Value:
        if _is_class(saved_id):
            return saved_id[1]
        storage = declared(saved_id)
        announced.setdefault(storage.key, storage)
        return None

    begin = _after_preamble(data, budget)
    _, middle = Machine(budget, PLAIN, announce).run(data, begin)
    keys, end = Machine(budget, {}, _no_reference).run(data, middle)
    tensors = PickledTensors(_places(data, end, keys, announced).__getitem__, len(data))

    def found(saved_id: Value) -> Value:
        return saved_id[1] if _is_class(saved_id) else tensors.storage(saved_id)

    machine = Machine(budget, {**PLAIN, **tensors.calls}, found)
    return machine.run(data, begin)[0], machine.foreign


def _after_preamble(data: memoryview, budget: ReadBudget) -> int:
    position = 0
    if len(data) > _FIRST and MAGIC.to_bytes(10, "little") not in bytes(data[:_FIRST]):
        raise unreadable("not-torch", _NOT_TORCH)
    for expected in (MAGIC, PROTOCOL):
        value, position = Machine(budget, {}, _no_reference).run(data, position)
        if value != expected:
            raise unreadable("not-torch", _NOT_TORCH)
    system, position = Machine(budget, {}, _no_reference).run(data, position)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise unreadable("big-endian", "The model was saved on a big-endian machine.")
    return position


def _no_reference(saved_id: Value) -> Value:
    raise unreadable("bad-pickle", "The pickle refers to a storage where there can be none.")


def _is_class(saved_id: Value) -> bool:
    """Whether this stands for a class of modules; its source, which may follow, is nothing to us."""
    match saved_id:
        case ("module", Global(), None | str(), None | str()):
            return True
    return False


def _places(data: memoryview, position: int, keys: Value, announced: Mapping[str, Declared]) -> dict[str, memoryview]:
    """Return the bytes of each storage; they must be all that is left of the file."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(announced):
        raise unreadable("bad-tensor", "The storages in the file are not those that its pickle announces.")
    places: dict[str, memoryview] = {}
    for key in keys:
        begin = position + _COUNT.size
        end = begin + announced[key].size
        if end > len(data):
            raise unreadable("truncated", "The file ends before its tensors do; it may have been cut off.")
        if _COUNT.unpack_from(data, position)[0] != announced[key].numel or key in places:
            raise unreadable("bad-tensor", f"The storage {quoted(key)} is announced in two ways.")
        places[key], position = data[begin:end], end
    if position != len(data):
        raise unreadable("bad-tensor", "The file goes on after its last tensor.")
    return places
