"""The pickle machine without its teeth: it stacks and remembers values, and records calls instead of making them.

A call is made sense of only where `Calls` has an entry for the very name, with code of our own; the rest stays a BuiltObject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from layerscope.models.formats.pickle_values import Again, BuiltObject, Global, StoredTensor, Value, quoted, unreadable
from layerscope.models.formats.pickled.opcodes import MAX_NAME, PLAIN_NUMBER, Opcodes, ReadBudget

Calls: TypeAlias = Mapping[str, Callable[[tuple[Value, ...], ReadBudget], Value]]
"""What calls of these dotted names mean; NotImplemented where the arguments are not the usual ones."""

MAX_DEPTH: Final = 150
MAX_KEY_TUPLE: Final = 16
MAX_ARGUMENTS: Final = 16
_KEYS: Final = (type(None), bool, int, float, str, bytes, Global, BuiltObject, StoredTensor)
_FIXED: Final = object()
_FIELDS: Final = ("type", "args", "kwargs", "state", "items", "entries")
_CONTAINER, _RECORD, _SET, _ENTRY = 72, 320, 232, 128
"""What each takes of the memory."""


class Machine:
    """Runs the opcodes of one pickle; `foreign` are the names it mentioned that nothing was made of."""

    def __init__(self, budget: ReadBudget, calls: Calls, persistent: Callable[[Value], Value]) -> None:
        self.foreign: set[Global] = set()
        self._budget = budget
        self._calls = calls
        self._persistent = persistent
        self._stack: list[Value] = []
        self._below: list[list[Value]] = []
        self._memo: dict[int, Value] = {}

    def run(self, data: memoryview, position: int = 0) -> tuple[Value, int]:
        """Return the value that the pickle at `position` describes, and the position after it.

        Raises:
            Refused: `bad-pickle`, `too-deep`, `duplicate-key`; and as of `Opcodes`, the calls and `persistent`.
        """
        opcodes = Opcodes(data, self._budget, position)
        try:
            for opcode, argument in opcodes:
                _MEANINGS[opcode](self, argument)
            root = self._stack.pop()
        except IndexError as error:
            raise unreadable("bad-pickle", "The pickle takes more values than it has put down.") from error
        if self._stack or self._below:
            raise unreadable("bad-pickle", "The pickle leaves values over at its end.")
        return _tree(root, self._budget), opcodes.position

    def _push(self, value: Value, cost: int = 0) -> None:
        self._budget.spend(cost)
        self._stack.append(value)

    def _mark(self, _: None) -> None:
        self._budget.spend(_CONTAINER)
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Value]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _put(self, index: int | None) -> None:
        index = len(self._memo) if index is None else index
        if index in self._memo:
            raise unreadable("bad-pickle", "The pickle gives the same memo twice.")
        self._budget.spend(_CONTAINER)
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise unreadable("bad-pickle", "The pickle uses a memo that it has not given.")
        self._stack.append(self._memo[index])

    def _protocol(self, version: int) -> None:
        if not 2 <= version <= 5:
            raise unreadable("bad-pickle", f"The pickle has the protocol {version}; 2 to 5 are read.")

    def _frozenset(self, _: None) -> None:
        items: set[Value] = set()
        fill_set(items, self._to_mark(), self._budget)
        self._push(frozenset(items), _SET)

    def _append(self, items: list[Value]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list | BuiltObject):
            raise unreadable("bad-pickle", f"The pickle appends to {quoted(target)}.")
        (target.items if isinstance(target, BuiltObject) else target).extend(items)

    def _set_items(self, items: list[Value]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not isinstance(target, dict | BuiltObject):
            raise unreadable("bad-pickle", f"The pickle sets {len(items)} keys and values of {quoted(target)}.")
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(target, BuiltObject):
            self._budget.spend(_ENTRY * len(items))
            target.entries.extend(pairs)
        else:
            fill_dict(target, pairs, self._budget)

    def _add_items(self, items: list[Value]) -> None:
        if not isinstance(self._stack[-1], set):
            raise unreadable("bad-pickle", f"The pickle adds items to {quoted(self._stack[-1])}.")
        fill_set(self._stack[-1], items, self._budget)

    def _name(self, parts: tuple[Value, Value]) -> None:
        for part in parts:
            if not isinstance(part, str) or not 0 < len(part) <= MAX_NAME or not part.isprintable():
                raise unreadable("bad-pickle", f"The pickle names {quoted(part)}, which is no name.")
        name = Global(*parts)
        self._push(name, _RECORD)
        if name.dotted not in self._calls:
            self.foreign.add(name)

    def _call(self, _: None) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        value: Value = NotImplemented
        usual = isinstance(args, tuple) and len(args) <= MAX_ARGUMENTS
        if usual and isinstance(function, Global) and function.dotted in self._calls:
            value = self._calls[function.dotted](args, self._budget)
        if value is NotImplemented:
            self._record(function, args)
        else:
            self._push(value, _RECORD)

    def _record(self, type_: Value, args: Value, kwargs: Value = None) -> None:
        kwargs = {} if kwargs is None else kwargs
        if not isinstance(type_, Global | BuiltObject) or not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise unreadable("bad-pickle", f"The pickle calls {quoted(type_)} with {quoted(args)}.")
        if isinstance(type_, Global):
            self.foreign.add(type_)
        self._push(BuiltObject(type_, args, kwargs), _RECORD)

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, BuiltObject) and target.state is None:
            target.state = state
        elif not isinstance(target, dict):  # the state of an OrderedDict, as `_metadata` of a state dict, is dropped
            raise unreadable("bad-pickle", f"The pickle sets attributes of {quoted(target)}.")

    def _last(self, count: int) -> list[Value]:
        return [self._stack.pop() for _ in range(count)][::-1]


def fill_dict(target: dict[Value, Value], pairs: Iterable[tuple[Value, Value]], budget: ReadBudget) -> None:
    """Put `pairs` into `target`, each key once; raises Refused: `duplicate-key`, `bad-pickle`, and as of `budget`."""
    for key, value in pairs:
        _check_key(key, budget)
        if key in target:
            raise unreadable("duplicate-key", f"The pickle sets the key {quoted(key)} twice.")
        target[key] = value


def fill_set(target: set[Value], items: Iterable[Value], budget: ReadBudget) -> None:
    """Put `items` into `target`; raises Refused: `bad-pickle`, and as of `budget`."""
    for item in items:
        _check_key(item, budget)
        target.add(item)


def _check_key(key: Value, budget: ReadBudget) -> None:
    budget.count()
    budget.spend(_ENTRY)
    # A tuple of tuples of tuples is hashed again each time, which may take for ever.
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > MAX_KEY_TUPLE or not all(isinstance(part, _KEYS) for part in parts):
        raise unreadable("bad-pickle", f"The pickle has {quoted(key)} as a key.")
    if isinstance(key, tuple):
        budget.dear_keys(max(1, len(key)))
    elif isinstance(key, float) or (isinstance(key, int) and not -PLAIN_NUMBER <= key <= PLAIN_NUMBER):
        budget.dear_keys(1)


def _tree(value: Value, budget: ReadBudget, depth: int = 0) -> Value:
    """Return a value with an `Again` where an object is in itself: from then on a tree, as readers expect it.

    Refuses what is too deep, as a list in itself is, or too much when each of its parts is visited wherever it occurs.
    """
    budget.count()
    if not isinstance(value, list | tuple | dict | set | frozenset | BuiltObject):
        return value
    if depth > MAX_DEPTH:
        raise unreadable("too-deep", f"The pickle is nested deeper than {MAX_DEPTH} levels, or holds itself.")
    if isinstance(value, BuiltObject):
        if value.open:
            return Again()
        value.open = True
    changed = {}
    for place, part in _parts(value):
        made = _tree(part, budget, depth + 1)
        if made is not part:
            changed[place] = made
    return _with(value, changed)


def _parts(value: Value) -> Iterator[tuple[Any, Value]]:
    """Yield the parts of a value, and where each of them is: `_FIXED` where it cannot be replaced, as a key or in a set."""
    if isinstance(value, dict):
        yield from ((_FIXED, key) for key in value)
        yield from value.items()
    elif isinstance(value, BuiltObject):
        yield from ((name, getattr(value, name)) for name in _FIELDS)
    else:
        yield from enumerate(value) if isinstance(value, list | tuple) else ((_FIXED, part) for part in value)


def _with(value: Value, changed: Mapping[Any, Value]) -> Value:
    """Put other parts in the place of some; raises Refused: `bad-pickle`, a key or an item of a set holds what it is in."""
    if _FIXED in changed:
        raise unreadable("bad-pickle", "The pickle has a key, or an item of a set, that holds itself.")
    if isinstance(value, BuiltObject):
        value.open = False
    if isinstance(value, tuple):
        return tuple(changed.get(place, part) for place, part in enumerate(value)) if changed else value
    for place, made in changed.items():
        setattr(value, place, made) if isinstance(value, BuiltObject) else value.__setitem__(place, made)
    return value


_MEANINGS: Final[Mapping[int, Callable[[Machine, Any], None]]] = {
    **dict.fromkeys(b"KMJGXBC\x8a\x8b\x8c\x8d\x8e\x96", Machine._push),
    **dict.fromkeys(b".\x95", lambda machine, _: None),
    0x80: Machine._protocol,
    ord("N"): lambda machine, _: machine._push(None),
    0x88: lambda machine, _: machine._push(True),
    0x89: lambda machine, _: machine._push(False),
    ord(")"): lambda machine, _: machine._push(()),
    ord("]"): lambda machine, _: machine._push([], _CONTAINER),
    ord("}"): lambda machine, _: machine._push({}, _CONTAINER),
    0x8F: lambda machine, _: machine._push(set(), _SET),
    ord("("): Machine._mark,
    ord("t"): lambda machine, _: machine._push(tuple(machine._to_mark()), _CONTAINER),
    0x85: lambda machine, _: machine._push(tuple(machine._last(1)), _CONTAINER),
    0x86: lambda machine, _: machine._push(tuple(machine._last(2)), _CONTAINER),
    0x87: lambda machine, _: machine._push(tuple(machine._last(3)), _CONTAINER),
    **dict.fromkeys(b"qr\x94", Machine._put),
    **dict.fromkeys(b"hj", Machine._get),
    ord("a"): lambda machine, _: machine._append(machine._last(1)),
    ord("e"): lambda machine, _: machine._append(machine._to_mark()),
    ord("s"): lambda machine, _: machine._set_items(machine._last(2)),
    ord("u"): lambda machine, _: machine._set_items(machine._to_mark()),
    0x90: lambda machine, _: machine._add_items(machine._to_mark()),
    0x91: Machine._frozenset,
    ord("c"): Machine._name,
    0x93: lambda machine, _: machine._name((machine._stack.pop(-2), machine._stack.pop())),
    ord("R"): Machine._call,
    0x81: lambda machine, _: machine._record(*machine._last(2)),
    0x92: lambda machine, _: machine._record(*machine._last(3)),
    ord("b"): Machine._build,
    ord("Q"): lambda machine, _: machine._push(machine._persistent(machine._stack.pop())),
}
