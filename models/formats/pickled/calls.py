"""The few calls of Python's and torch's own plain types that a pickle may ask for, made sense of by code of our own."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from layerscope.models.formats.pickle_values import Value
from layerscope.models.formats.pickled.machine import Calls, fill_dict, fill_set
from layerscope.models.formats.pickled.opcodes import ReadBudget

Arguments = tuple[Value, ...]


def _dict(args: Arguments, budget: ReadBudget) -> Value:
    made: dict[Value, Value] = {}
    match args:
        case ():
            return made
        case (dict() as given,):
            fill_dict(made, given.items(), budget)
            return made
    return NotImplemented


def _default_dict(args: Arguments, budget: ReadBudget) -> Value:
    return {} if len(args) <= 1 else NotImplemented  # what it would call for a missing key is left out


def _deque(args: Arguments, budget: ReadBudget) -> Value:
    match args:
        case () | ([] | (),) | ([] | (), None | int()):
            return []
    return NotImplemented


def _set(args: Arguments, budget: ReadBudget) -> Value:
    match args:
        case (list() as items,):
            made: set[Value] = set()
            fill_set(made, items, budget)
            return made
    return NotImplemented


def _frozenset(args: Arguments, budget: ReadBudget) -> Value:
    made = _set(args, budget)
    return made if made is NotImplemented else frozenset(made)


def _encoded(args: Arguments, budget: ReadBudget) -> Value:
    match args:
        case ():
            return b""
        case (bytes() as raw,):
            return raw
        case (str() as text, "latin1" | "latin-1"):
            budget.spend(len(text))
            with suppress(UnicodeEncodeError):
                return text.encode("latin-1")
    return NotImplemented


def _size(args: Arguments, budget: ReadBudget) -> Value:
    return args[0] if len(args) == 1 and isinstance(args[0], tuple) else NotImplemented


def _device(args: Arguments, budget: ReadBudget) -> Value:
    match args:
        case (str() as kind,):
            return kind
        case (str() as kind, int() as index) if len(kind) < 20 and 0 <= index < 1000:
            return f"{kind}:{index}"
    return NotImplemented


PLAIN: Final[Calls] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "collections.deque": _deque,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encoded,
    **{
        f"{module}.{name}": meaning
        for module in ("builtins", "__builtin__")
        for name, meaning in (("set", _set), ("frozenset", _frozenset), ("bytes", _encoded), ("bytearray", _encoded))
    },
}
