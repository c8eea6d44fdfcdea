"""The graph of calls as the body of `forward`: a line a call, `torch.nn.functional` as F, sequences called as one.

A value takes the name of one that is used for the last time in its line, so that what runs through the model stays `x`;
sizes that are used once stand where they are used.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from layerscope.functions.summary.modules import Tree
from layerscope.models.safe_form.graph_module import refs
from layerscope.models.safe_form.graph_nodes import DType, Node, Ref
from layerscope.models.safe_form.graph_spec import Graph

_DEEPEST_INLINE: Final = 3
_VALUES: Final = ("x", "y", "z", "u", "v", "w")
_SIZES: Final = ("n", "m", "k")
_SIZE_METHODS: Final = frozenset({"size", "dim", "numel"})
_SIZE_ATTRIBUTES: Final = frozenset({"shape", "ndim", "dtype", "device"})
_INFIX: Final = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_PREFIX: Final = {"neg": "-", "pos": "+"}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "inplace": False,
    "ceil_mode": False,
    "return_indices": False,
    "dtype": None,
    "stride": None,
    "padding": 0,
    "dilation": 1,
}
_MODULES: Final = {"functional": "F", "torch": "torch", "math": "math", "torchvision": "swin_transformer"}


def body(graph: Graph, tree: Tree) -> list[str]:
    """Return the statements of `forward(self, x)`."""
    return _Body(graph, tree).lines()


class _Body:
    def __init__(self, graph: Graph, tree: Tree) -> None:
        self._nodes = graph.nodes
        self._tree = tree
        self._is_size = sizes(graph.nodes)
        self._place, self._last = _places(graph.nodes, self._is_size)
        self._text: dict[int, str] = {}
        self._holds: dict[str, int] = {"x": self._last[0]}
        """Names in use, each with the last node that needs what it holds."""
        self._compound: set[int] = set()
        """Nodes whose text is an operation, which needs brackets inside another."""

    def lines(self) -> list[str]:
        """Return one statement a line."""
        lines: list[str] = []
        index, section = 1, None
        self._text[0] = "x"
        while index < len(self._nodes) - 1:
            node = self._nodes[index]
            length = self._sequence(index)
            text = self._sequence_call(index) if length > 1 else self._expression(index, node)
            end = index + length - 1
            if self._place[end] != end:
                self._text[end] = text
            else:
                if (current := self._section(node)) != section and current is not None:
                    lines += [""] if lines else []
                    section = current
                name = self._named(end)
                self._text[end] = name
                self._compound.discard(end)
                lines.append(f"{name} = {text}")
            index = end + 1
        (result,) = self._nodes[-1].args
        name = self._text[result.node]
        if lines and lines[-1].startswith(f"{name} = "):
            return [*lines[:-1], f"return {lines[-1].removeprefix(f'{name} = ')}"]
        return [*lines, f"return {name}"]

    def _section(self, node: Node) -> str | None:
        """Return the outermost container that a layer is in; None for what is in none."""
        first, _, rest = node.target.partition(".")
        return first if node.operation == "layer" and rest else None

    def _sequence(self, index: int) -> int:
        return next((length for name, length in self._tree.chains.get(index, []) if name), 1)

    def _sequence_call(self, index: int) -> str:
        name = next(name for name, _ in self._tree.chains[index] if name)
        return f"{self._tree.path(name)}({self._value(self._nodes[index].args[0])})"

    def _named(self, index: int) -> str:
        """Return the name for a value: the first whose own value nobody needs after this."""
        kinds = _SIZES if index in self._is_size else _VALUES
        names = (f"{kind}{number or ''}" for number in itertools.count() for kind in kinds)
        name = next(name for name in names if self._holds.get(name, 0) <= index)
        self._holds[name] = self._last[index]
        return name

    # One call ---------------------------------------------------------------------------------------------------------

    def _expression(self, index: int, node: Node) -> str:
        if node.operation == "tensor":
            return self._tree.tensor(node.target)
        args = [self._value(value) for value in node.args]
        functional = node.target.startswith("functional.")
        kwargs = [one for one in node.kwargs.items() if not (functional and _is_default(*one))]
        named = [f"{keyword}={self._value(value)}" for keyword, value in kwargs]
        if node.operation == "layer":
            return f"{self._tree.path(node.target)}({', '.join([*args, *named])})"
        if node.operation == "attribute":
            return f"{self._operand(node.args[0])}.{node.target}"
        if node.operation == "method":
            return f"{self._operand(node.args[0])}.{node.target}({', '.join([*args[1:], *named])})"
        module, _, name = node.target.partition(".")
        if module == "operator":
            return self._operation(index, name, node)
        return f"{_MODULES[module]}.{name}({', '.join([*args, *named])})"

    def _operation(self, index: int, name: str, node: Node) -> str:
        if name == "getitem":
            return f"{self._operand(node.args[0])}[{self._index(node.args[1])}]"
        operands = [self._operand(value) for value in node.args]
        if name == "abs":
            return f"abs({self._value(node.args[0])})"
        self._compound.add(index)
        if name in _PREFIX:
            return f"{_PREFIX[name]}{operands[0]}"
        return f"{operands[0]} {_INFIX[name]} {operands[1]}"

    def _operand(self, value: Any) -> str:
        text = self._value(value)
        compound = isinstance(value, Ref) and value.node in self._compound
        return f"({text})" if compound or (isinstance(value, int | float) and text.startswith("-")) else text

    def _index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(self._index(item) for item in value) + ("," if len(value) == 1 else "")
        if isinstance(value, slice):
            begin, end, step = (
                "" if one is None else self._value(one) for one in (value.start, value.stop, value.step)
            )
            return f"{begin}:{end}" + (f":{step}" if step else "")
        return self._value(value)

    def _value(self, value: Any) -> str:
        match value:
            case Ref(node):
                return self._text[node]
            case DType(name):
                return f"torch.{name}"
            case slice(start=start, stop=stop, step=step):
                return f"slice({self._value(start)}, {self._value(stop)}, {self._value(step)})"
            case tuple():
                items = [self._value(item) for item in value]
                return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
            case list():
                return f"[{', '.join(self._value(item) for item in value)}]"
            case float() if not math.isfinite(value):
                return f'float("{value}")'
        return "..." if value is ... else repr(value)


def _is_default(keyword: str, value: Any) -> bool:
    """Tell whether every function of `torch.nn.functional` that has this keyword takes it to be this."""
    return keyword in _DEFAULTS and type(value) is type(_DEFAULTS[keyword]) and value == _DEFAULTS[keyword]


# What is worked out beforehand ----------------------------------------------------------------------------------------


def _used(node: Node) -> Iterator[int]:
    return refs((*node.args, *node.kwargs.values()))


def sizes(nodes: tuple[Node, ...]) -> set[int]:
    """Return the nodes whose value is a size, or follows from sizes alone."""
    found: set[int] = set()
    for index, node in enumerate(nodes):
        of_sizes = bool(node.args) and all(one in found for one in _used(node))
        if (
            (node.operation == "method" and node.target in _SIZE_METHODS)
            or (node.operation == "attribute" and node.target in _SIZE_ATTRIBUTES)
            or (node.operation == "function" and of_sizes and node.target.startswith(("operator.", "math.")))
        ):
            found.add(index)
    return found


def _places(nodes: tuple[Node, ...], sizes: set[int]) -> tuple[list[int], list[int]]:
    """Return for each node the statement that it stands in (its own, or its only user's), and the last that needs it.

    What is written where it is used must find the same names there: so only nodes like it may lie between.
    """
    uses: Counter[int] = Counter()
    user = [len(nodes)] * len(nodes)
    for index, node in enumerate(nodes):
        for used in _used(node):
            uses[used] += 1
            user[used] = index
    place = list(range(len(nodes)))
    next_statement = len(nodes) - 1
    depth = [0] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        single = uses[index] == 1 and user[index] <= next_statement and nodes[user[index]].operation != "output"
        if nodes[index].operation == "tensor" or (index in sizes and single and depth[user[index]] < _DEEPEST_INLINE):
            place[index] = -1 if nodes[index].operation == "tensor" else place[user[index]]
            depth[index] = 0 if nodes[index].operation == "tensor" else depth[user[index]] + 1
        else:
            next_statement = index
    last = list(range(len(nodes)))
    for index, node in enumerate(nodes):
        for used in _used(node):
            last[used] = max(last[used], place[index])
    return place, last
