"""Arithmetic on sizes in a trace: done there with tensors of one number, in the safe form with Python's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from layerscope.models.formats.torchscript.calls import Constant, TracedCall, Value, unknown
from layerscope.models.formats.torchscript.operators import NUMBERS, base_name

_MAY_BREAK = frozenset({"operator.pow", "operator.truediv", "math.sqrt"})
_AS_ITS_OPERANDS = frozenset({f"operator.{name}" for name in ("add", "sub", "mul", "mod", "neg", "floordiv")})
_SAME = frozenset({"to", "detach", "clone", "contiguous"})


def number_call(
    name: str, args: Sequence[Value], add: Callable[[TracedCall], TracedCall], kwargs: Mapping[str, Value] | None = None
) -> Value | None:
    """Return the value of an operator on sizes; None where it works on tensors, and is to be followed as such.

    Raises:
        Refused: `unknown-operator`, an operator on sizes that is not known.
    """
    if name in ("size", "numel", "dim") and len(args) == (2 if name == "size" else 1) and not _is_size(args[0]):
        return add(TracedCall(name, {str(index): value for index, value in enumerate(args)}, number=True))
    plain = [value.number if isinstance(value, Constant) else value for value in args]
    if any(isinstance(value, TracedCall) and value.changed for value in plain):
        raise unknown(name, " on a size that was changed in place")
    if name in ("int", "float"):
        return _whole(plain[0], add) if name == "int" else plain[0]
    if not plain or (not _is_size(args[0]) and not (len(args) > 1 and _is_size(args[1]) and _is_number(plain[0]))):
        return None if name not in _SAME or not isinstance(args[0], Constant) or plain[0] is None else args[0]
    if name in _SAME:
        return plain[0]
    if not all(_is_number(value) for value in plain[:2]):
        return None
    return _arithmetic(name, plain, kwargs or {}, add)


def _arithmetic(
    name: str, plain: list[Value], kwargs: Mapping[str, Value], add: Callable[[TracedCall], TracedCall]
) -> TracedCall:
    if kwargs.get("alpha", 1) != 1 or plain[2:] not in ([], [1]):
        raise unknown(name, " with alpha on sizes")
    name, in_place = base_name(name)
    if in_place and isinstance(plain[0], TracedCall):
        plain[0].changed = True
    target = NUMBERS.get(name)
    if name == "floor":
        target = "floor"
    elif name == "rsub":
        target, plain = "operator.sub", [plain[1], plain[0]]
    elif name == "pow":
        target = "operator.pow"
    elif name == "div" and kwargs.get("rounding_mode") is not None:
        target = "operator.floordiv"  # sizes are positive: floor and trunc are the same
    elif name == "sqrt":
        target = "math.sqrt"
    elif name == "ceil":
        target = "math.ceil"
    if target is None:
        raise unknown(name, " on sizes")
    return add(TracedCall(target, {str(index): value for index, value in enumerate(plain[:2])}, number=True))


def _whole(value: Value, add: Callable[[TracedCall], TracedCall]) -> Value:
    if isinstance(value, TracedCall) and value.operator == "operator.truediv":
        return add(TracedCall("operator.floordiv", value.arguments, number=True))
    if _is_size(value) and not _is_whole(value):
        return add(TracedCall("math.floor", {"0": value}, number=True))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_whole(value: Value) -> bool:
    """Tell whether a number on sizes is whole: what is divided, or a root, need not be."""
    if not isinstance(value, TracedCall):
        return isinstance(value, int)
    if value.operator in _MAY_BREAK:
        return False
    return value.operator not in _AS_ITS_OPERANDS or all(map(_is_whole, value.arguments.values()))


def _is_size(value: Value) -> bool:
    return isinstance(value, TracedCall) and value.number


def _is_number(value: Value) -> bool:
    return _is_size(value) or (isinstance(value, int | float) and not isinstance(value, bool))
