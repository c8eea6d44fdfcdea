"""The arguments of a step in the JSON of an exported program: a union with one key, from which a plain value is made.

Schema: torch/_export/serde/schema.py. Texts in it are compared with known ones; expressions are passed over unread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from layerscope.models.formats.exported_program.refusals import WHOLE, bad_program
from layerscope.models.formats.torchscript.calls import DEVICE
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

DTYPES: Final[Mapping[int, str]] = {
    1: "U8",
    2: "I8",
    3: "I16",
    4: "I32",
    5: "I64",
    6: "F16",
    7: "F32",
    8: "F64",
    12: "BOOL",
    13: "BF16",
}
"""The names that safetensors has for them, by the numbers in a program."""
CONTIGUOUS: Final = "contiguous"
_FAR: Final = 2**63
_NUMBERS: Final[Mapping[int, int]] = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7, 12: 11, 13: 15}
"""The numbers that traces have for them."""


@dataclass(frozen=True, slots=True)
class Named:
    """A value of the graph, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a step: its name in the operator's schema, its value, and whether it is given by name."""

    name: str
    value: Any
    keyword: bool


def table(value: Any, what: str) -> dict[str, Any]:
    """Return a JSON object; raises Refused: `bad-program`."""
    if not isinstance(value, dict):
        raise bad_program(f"{what} is no object")
    return value


def rows(value: Any, what: str) -> list[Any]:
    """Return a JSON list; raises Refused: `bad-program`."""
    if not isinstance(value, list):
        raise bad_program(f"{what} is no list")
    return value


def text(value: Any, what: str) -> str:
    """Return a text; raises Refused: `bad-program`."""
    if not isinstance(value, str):
        raise bad_program(f"{what} is no text")
    return value


def union(value: Any, what: str) -> tuple[str, Any]:
    """Return the one entry of a union; raises Refused: `bad-program`."""
    if not isinstance(value, dict) or len(value) != 1:
        raise bad_program(f"{what} is not of one kind")
    return next(iter(value.items()))


def value_of(argument: Any) -> Any:
    """Return an argument as Python's own value, or what it names.

    Raises:
        Refused: `bad-program`.
    """
    kind, value = union(argument, "an argument")
    if kind not in _KINDS:
        raise bad_program(f"it has an argument {shown(kind)}")
    return _KINDS[kind](value)


def _none(_: Any) -> None:
    return None


def _of(*types: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in types or (type(value) is int and abs(value) > _FAR):
            raise bad_program(f"{shown(value)} is no {types[0].__name__} that is used")
        return value

    return check


def _each(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: [read(item) for item in rows(value, "an argument")]


def _named(value: Any) -> Named:
    return Named(text(table(value, "a tensor").get("name"), "the name of a tensor"))


def _symbol(value: Any) -> Any:
    """Return a size: a number, or the name of one."""
    kind, content = union(value, "a size")
    return Named(text(content, "the name of a size")) if kind == "as_name" else _number(content)


def _dtype(value: Any) -> int:
    if type(value) is not int or value not in _NUMBERS:
        raise bad_program(f"{shown(value)} is no dtype that is known here")
    return _NUMBERS[value]


def _optional(value: Any) -> Any:
    kind, content = union(value, "an argument")
    return _named(content) if kind == "as_tensor" else None


def _float(value: Any) -> Any:
    if value in ("Infinity", "-Infinity", "NaN"):
        raise Refused("unknown-operator", f"The model computes with {value}, which is not known here.", WHOLE)
    return _of(float, int)(value)


_number = _of(int, float, bool)
_KINDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "as_none": _none,
    "as_tensor": _named,
    "as_tensors": _each(_named),
    "as_int": _of(int),
    "as_ints": _each(_of(int)),
    "as_float": _float,
    "as_floats": _each(_float),
    "as_string": _of(str),
    "as_strings": _each(_of(str)),
    "as_sym_int": _symbol,
    "as_sym_ints": _each(_symbol),
    "as_sym_float": _symbol,
    "as_sym_floats": _each(_symbol),
    "as_sym_bool": _symbol,
    "as_sym_bools": _each(_symbol),
    "as_scalar_type": _dtype,
    "as_memory_format": lambda value: CONTIGUOUS if value == 1 else None,
    "as_layout": _none,
    "as_device": lambda _: DEVICE,
    "as_bool": _of(bool),
    "as_bools": _each(_of(bool)),
    "as_optional_tensor": _optional,
    "as_optional_tensors": _each(_optional),
}
