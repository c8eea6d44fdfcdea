"""What the forward pass of a trace or an exported program is made of: calls of operators and layers, on named values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.torchscript.code import bad_code
from layerscope.models.formats.torchscript.operators import (
    OPERATORS,
    REQUIRED,
    WITHOUT_EFFECT,
    TraceOperator,
    base_name,
)
from layerscope.models.remedies import OTHERWISE
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

Value: TypeAlias = Any
"""None, bool, int, float, str, list, tuple, Record (a module), Own, Constant, TracedCall or DEVICE, nested."""

DEVICE: Final = object()
"""Where a trace put a tensor; nothing depends on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """A tensor of the model, by its full name."""

    name: str
    stored: StoredTensor


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor that the trace made a constant of."""

    stored: StoredTensor

    @property
    def number(self) -> bool | int | float | None:
        """Its value as Python's own, where it is a single number."""
        if self.stored.shape or self.stored.dtype == "BF16":
            return None
        value = self.stored.array.item()
        return value if isinstance(value, bool | int | float) else None


@dataclass(frozen=True, slots=True)
class TracedLayer:
    """A layer with its constructor arguments, as the calls of its forward tell them."""

    name: str
    kind: str
    arguments: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class TracedCall:
    """One step: an operator by its name, its arguments by theirs, or by their position where no table has names.

    A `number` is a size or what was computed of sizes. `operator` is besides "input", "item" or "layer".
    """

    operator: str
    arguments: dict[str, Value] = field(default_factory=dict)
    number: bool = False
    in_place: bool = False
    changed: bool = False
    """Whether a later step works in place on this size."""
    layer: TracedLayer | None = None

    @property
    def first(self) -> Value:
        """The first argument."""
        return next(iter(self.arguments.values()), None)


@dataclass(frozen=True, slots=True)
class Use:
    """One call of a module: its class, what it was given, the calls that it made, and what it gave back."""

    name: str
    kind: str
    inputs: tuple[Value, ...]
    calls: Sequence[TracedCall]
    result: Value


Recognise = Callable[[Use], tuple[TracedLayer, Value] | None]
"""Tells which layer one call of a module is, and what it is given."""


def bound(name: str, args: list[Value], kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments of a call by the names that the operator's table gives them, with their defaults.

    Raises:
        Refused: `bad-code`.
    """
    operator = OPERATORS.get(base_name(name)[0])
    effective = {keyword: value for keyword, value in kwargs.items() if keyword not in WITHOUT_EFFECT}
    if operator is None or operator.target == "to":
        return {str(index): value for index, value in enumerate(args)} | effective
    parameters = operator.parameters
    named = {parameter.name: value for parameter, value in zip(parameters, args, strict=False)}
    effective = {
        keyword: value for keyword, value in effective.items() if value is not None or keyword in _names(operator)
    }
    if len(args) > len(parameters) or set(named) & set(effective) or set(effective) - _names(operator):
        raise bad_code(f"{shown(name)} has other arguments than it takes")
    named |= effective
    for parameter in parameters:
        value = named.setdefault(parameter.name, parameter.default)
        if value is REQUIRED or (parameter.fixed and value != parameter.default):
            raise unknown(name, f" with {parameter.name}={shown(value) if value is not REQUIRED else '?'}")
    return {parameter.name: named[parameter.name] for parameter in parameters}


def _names(operator: TraceOperator) -> set[str]:
    return {parameter.name for parameter in operator.parameters}


def unknown(name: str, detail: str = "") -> Refused:
    """Return the refusal of an operator that is not on the list."""
    return Refused(
        "unknown-operator", f"The model uses {shown(f'torch.{name}')}{detail}, which is not known here.", OTHERWISE
    )


def leaves(value: Value) -> Iterator[Value]:
    """Give what lists and tuples hold, however nested."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value
