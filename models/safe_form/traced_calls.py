"""From the calls that `torch.fx` traced to the nodes of the safe form; `tracing` makes sure that all are known."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.fx
from torch import Tensor, nn

from layerscope.models.remedies import IMAGES_ALONE, OTHERWISE, SCORES_ALONE
from layerscope.models.safe_form import live_module
from layerscope.models.safe_form.graph_nodes import DType, Node, Ref
from layerscope.models.safe_form.operators import DTYPES, function_name
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_WITHOUT_EFFECT: Final = frozenset({"memory_format", "_stacklevel"})
"""Keywords that choose a memory layout or the depth of a warning: results do not depend on them."""


class Encoder:
    """Writes a traced graph as nodes; tensors that belong to no module get names of their own in `constants`."""

    def __init__(self, root: nn.Module) -> None:
        """Encode calls of the module `root`."""
        self.constants: dict[str, Tensor] = {}
        self._root = root
        self._registered = {id(value): name for name, value in (*root.named_buffers(), *root.named_parameters())}
        self._taken = {name for name, _ in (*root.named_modules(), *root.named_buffers(), *root.named_parameters())}
        self._numbers: dict[torch.fx.Node, int] = {}

    def encode(self, calls: torch.fx.Graph) -> list[Node]:
        """Return the nodes of the calls that count, in order of execution.

        Raises:
            Refused: `several-inputs`, `several-outputs`, `bad-argument`.
        """
        nodes = []
        for call in _live(calls):
            nodes.append(self._node(call))
            self._numbers[call] = len(self._numbers)
        return nodes

    def _node(self, call: torch.fx.Node) -> Node:
        if call.op == "placeholder":
            return Node("input")
        if call.op == "get_attr":
            return Node("tensor", self._tensor(str(call.target)))
        if call.op == "output":
            return Node("output", args=(self._output(call.args[0]),))
        args = tuple(self._value(value) for value in call.args)
        named = {name: value for name, value in call.kwargs.items() if name not in _WITHOUT_EFFECT}
        if named.get("out", 0) is None:
            del named["out"]
        kwargs = {name: self._value(value) for name, value in named.items()}
        if call.op == "call_module":
            return Node("layer", str(call.target), args, kwargs)
        if call.op == "call_method":
            return Node("method", str(call.target), args, kwargs)
        if call.target is getattr:
            return Node("attribute", str(call.args[1]), args[:1])
        return Node("function", str(function_name(call.target)), args, kwargs)  # type: ignore[arg-type]

    def _tensor(self, target: str) -> str:
        value: Any = self._root
        for name in target.split("."):
            value = getattr(value, name)
        if id(value) in self._registered:
            return self._registered[id(value)]
        if not isinstance(value, Tensor):
            raise Refused("bad-argument", f"The model uses {shown(target)}, which is no tensor.", OTHERWISE)
        number = 0
        while (name := f"_constant{number}") in self._taken:
            number += 1
        self._taken.add(name)
        self._registered[id(value)] = name
        self.constants[name] = value
        return name

    def _output(self, value: Any) -> Ref:
        if not isinstance(value, torch.fx.Node):
            raise Refused(
                "several-outputs",
                f"The model returns a {type(value).__name__.removeprefix('immutable_')}, not one tensor.",
                SCORES_ALONE,
            )
        return Ref(self._numbers[value])

    def _value(self, value: Any) -> Any:
        match value:
            case torch.fx.Node():
                return Ref(self._numbers[value])
            case None | str():
                return value
            case tuple():
                return tuple(self._value(item) for item in value)
            case list():
                return [self._value(item) for item in value]
            case slice(start=start, stop=stop, step=step):
                return slice(self._value(start), self._value(stop), self._value(step))
            case torch.dtype() if value in DTYPES.values():
                return DType(str(value).removeprefix("torch."))
        return value if value is ... else self._number(value)

    def _number(self, value: Any) -> Any:
        try:
            return live_module.number(value)
        except TypeError as error:
            raise Refused(
                "bad-argument",
                f"The forward pass uses the value {shown(str(value))}, which cannot be written down.",
                OTHERWISE,
            ) from error


def _live(calls: torch.fx.Graph) -> list[torch.fx.Node]:
    """Return the calls that count: input and output, layers, changes in place, and all that those use.

    Checks of the input, and values that nobody uses, are left out.
    """
    kept: dict[torch.fx.Node, None] = {}
    for call in reversed(calls.nodes):
        if _acts(call) or any(user in kept for user in call.users):
            kept[call] = None
    inputs = [call for call in calls.nodes if call.op == "placeholder"]
    if not inputs or any(call in kept for call in inputs[1:]):
        raise Refused(
            "several-inputs",
            "The model's forward does not take exactly one tensor.",
            f"Give every parameter of forward after the first a default of None, a number or a string. Or: {IMAGES_ALONE}",
        )
    if str(inputs[0].target).startswith("*"):
        raise Refused(
            "several-inputs",
            f"The model's forward takes {inputs[0].target}, of which the images are only the first.",
            f"Let forward name the images: def forward(self, images, …). Or: {IMAGES_ALONE}",
        )
    kept[inputs[0]] = None
    return [call for call in calls.nodes if call in kept]


def _acts(call: torch.fx.Node) -> bool:
    in_place = call.op == "call_method" and str(call.target).endswith("_")
    return call.op in ("call_module", "output") or in_place or bool(call.kwargs.get("inplace"))
