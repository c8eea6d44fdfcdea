"""The steps of a model's forward pass, as checked plain data: which call, on which values, in which order.

The part of `graph_spec` that deals with nodes. Names are only ever looked up in `vocabulary`; a value refers to an
earlier node by its number, so there are no cycles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

from layerscope.models.file_kinds import PACK_COMMAND
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.vocabulary import ARGUMENT_DTYPES, ATTRIBUTES, FUNCTIONS, METHODS, STRINGS
from layerscope.schemas.errors import Refused

MAX_NESTING: Final = 4
MAX_ITEMS: Final = 4_096
"""Values in the arguments of one node."""
MAX_WHOLE: Final = 2**31 - 1
MAX_NAME: Final = 256
MAX_DEPTH: Final = 32
"""Segments in the name of a module or tensor."""

NAME: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_KEYWORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_EQUATION: Final = re.compile(r"[A-Za-z.,> -]{1,64}", re.ASCII)
_FORBIDDEN_KEYWORDS: Final = frozenset({"out", "generator", "device", "layout", "pin_memory"})

AGAIN: Final = f"Write the file again with the current release: {PACK_COMMAND}"

Operation = Literal["input", "layer", "function", "method", "attribute", "tensor", "output"]
_VOCABULARIES: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "function": (FUNCTIONS, "unknown-function"),
    "method": (METHODS, "unknown-method"),
    "attribute": (ATTRIBUTES, "unknown-attribute"),
}


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of an earlier node."""

    node: int


@dataclass(frozen=True, slots=True)
class DType:
    """A torch dtype as an argument, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the forward pass; `target` is a layer's, tensor's, function's, method's or attribute's name."""

    operation: Operation
    target: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def refuse(code: str, message: str) -> Refused:
    """Return the refusal of a file that the current release would not have written."""
    return Refused(code, message, AGAIN)


def check_keys(row: Mapping[str, Any], required: set[str], optional: set[str], what: str) -> None:
    """Check that a JSON object has the required fields, and besides them none but the optional ones.

    Raises:
        Refused: `bad-structure`.
    """
    if not required <= set(row) <= required | optional:
        raise refuse("bad-structure", f"The fields {shown(sorted(row))} are not those of a {what}.")


def read_name(value: Any) -> str:
    """Return `value` if it can name a layer or a tensor.

    Raises:
        Refused: `bad-name`, `too-deep`.
    """
    if not isinstance(value, str) or len(value) > MAX_NAME or not NAME.fullmatch(value):
        raise Refused(
            "bad-name",
            f"{shown(value)} cannot name a layer or tensor: letters, digits, _, - and dots, at most {MAX_NAME}.",
            f"Rename it in the model, then: {PACK_COMMAND}",
        )
    if value.count(".") >= MAX_DEPTH:
        raise refuse("too-deep", f"{shown(value)} lies deeper than {MAX_DEPTH} modules.")
    return value


def read_node(row: dict[str, Any], index: int) -> Node:
    """Return node number `index` of a graph once everything in it is known and within its limits.

    Raises:
        Refused: `bad-structure`, `bad-name`, `unknown-operation`, `unknown-function`, `unknown-method`,
            `unknown-attribute`, `bad-argument`, `too-deep`, `undefined-node`.
    """
    check_keys(row, {"op"}, {"target", "args", "kwargs"}, "node")
    operation, args, kwargs = row["op"], row.get("args", []), row.get("kwargs", {})
    if not isinstance(operation, str) or operation not in get_args(Operation):
        raise refuse("unknown-operation", f"Node {index} is a {shown(operation)}, which is no kind of node.")
    target = "" if operation in ("input", "output") else _target(operation, row.get("target"), index)
    if not target and "target" in row:
        raise refuse("bad-structure", f"Node {index}, an {operation}, has a target.")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise refuse("bad-structure", f"Node {index} has arguments that are not a list and a table.")
    if any(keyword in _FORBIDDEN_KEYWORDS or not _KEYWORD.fullmatch(keyword) for keyword in kwargs):
        raise refuse("bad-argument", f"Node {index} has the keywords {shown(sorted(kwargs))}.")
    reader = _Values(index, target == "torch.einsum")
    return Node(
        cast(Operation, operation),
        target,
        tuple(reader.read(value) for value in args),
        {keyword: reader.read(value) for keyword, value in kwargs.items()},
    )


def _target(operation: str, target: Any, index: int) -> str:
    if operation not in _VOCABULARIES:
        return read_name(target)
    names, code = _VOCABULARIES[operation]
    if not isinstance(target, str) or target not in names:
        raise refuse(code, f"Node {index} uses the {operation} {shown(target)}, which the safe form does not know.")
    return target


class _Values:
    """Reads the arguments of one node, within a budget of values."""

    def __init__(self, index: int, takes_equation: bool) -> None:
        self._index = index
        self._takes_equation = takes_equation
        self._left = MAX_ITEMS

    def read(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if depth > MAX_NESTING or self._left < 0:
            raise refuse("too-deep", f"Node {self._index} has arguments that are nested too deep or too many.")
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return self._whole(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.read(item, depth + 1) for item in value]
        if isinstance(value, dict) and len(value) == 1:
            [(tag, content)] = value.items()
            return self._tagged(tag, content, depth)
        raise self._unreadable(value)

    def _whole(self, value: int) -> int:
        if abs(value) > MAX_WHOLE:
            raise self._unreadable(value)
        return value

    def _text(self, value: str) -> str:
        if value not in STRINGS and not (self._takes_equation and _EQUATION.fullmatch(value)):
            raise self._unreadable(value)
        return value

    def _tagged(self, tag: str, content: Any, depth: int) -> Any:
        if tag == "node" and type(content) is int:
            if not 0 <= content < self._index:
                raise refuse("undefined-node", f"Node {self._index} uses node {shown(content)}, not one before it.")
            return Ref(content)
        if tag == "tuple" and isinstance(content, list):
            return tuple(self.read(item, depth + 1) for item in content)
        if tag == "slice" and isinstance(content, list) and len(content) == 3:
            return slice(*(self.read(item, depth + 1) for item in content))
        if tag == "dtype" and isinstance(content, str) and content in ARGUMENT_DTYPES:
            return DType(content)
        if tag == "ellipsis" and content is True:
            return ...
        raise self._unreadable({tag: content})

    def _unreadable(self, value: Any) -> Refused:
        return refuse("bad-argument", f"Node {self._index} has the argument {shown(value)}, which is not allowed.")


def node_to_json(node: Node) -> dict[str, Any]:
    """Return the JSON of one node."""
    row: dict[str, Any] = {"op": node.operation}
    if node.target:
        row["target"] = node.target
    if node.args:
        row["args"] = [_value_to_json(value) for value in node.args]
    if node.kwargs:
        row["kwargs"] = {keyword: _value_to_json(value) for keyword, value in node.kwargs.items()}
    return row


def _value_to_json(value: Any) -> Any:
    """Return one argument of a node as JSON; what JSON has no form for is tagged, as `{"node": 3}`."""
    match value:
        case Ref(node):
            return {"node": node}
        case DType(name):
            return {"dtype": name}
        case slice(start=start, stop=stop, step=step):
            return {"slice": _all_to_json((start, stop, step))}
        case tuple():
            return {"tuple": _all_to_json(value)}
        case list():
            return _all_to_json(value)
    return {"ellipsis": True} if value is ... else value


def _all_to_json(values: Iterable[Any]) -> list[Any]:
    return [_value_to_json(value) for value in values]
