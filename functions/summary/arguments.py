"""Constructor arguments of layers, as people write them: without what is the default, and 3 for (3, 3)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from layerscope.models.safe_form.operators import LAYER_CLASSES

RECURRENT: Final[Mapping[str, Any]] = {
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
}
"""Defaults of RNN, LSTM and GRU, whose constructors do not show them."""

_SAME_AS: Final[Mapping[str, str]] = {"stride": "kernel_size", "kdim": "embed_dim", "vdim": "embed_dim"}
"""What stands in for an argument that is left out, where that is another one."""
_OTHER_AXES: Final = ("Pad1d", "Pad2d")
"""How layers are called whose `padding` is one number a side."""
_PER_AXIS: Final = frozenset({"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"})
_BY_NAME: Final = frozenset({"kernel_size", "input_size", "hidden_size"})


def readable(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that have to be said to make the layer, in the order of its constructor."""
    defaults = _defaults(kind)
    said = {}
    for name in [*(one for one in defaults if one in arguments), *(one for one in arguments if one not in defaults)]:
        value = arguments[name] if kind.endswith(_OTHER_AXES) else _plain(name, arguments[name])
        other = _SAME_AS.get(name, "")
        instead = _plain(other, arguments.get(other)) if defaults.get(name, ...) is None else ...
        if not (_same(value, defaults.get(name, inspect.Parameter.empty)) or (other and _same(value, instead))):
            said[name] = value
    return said


def constructor(kind: str, arguments: Mapping[str, Any]) -> str:
    """Return the call that makes the layer, for example `nn.Conv2d(1, 8, kernel_size=3, padding=1)`."""
    defaults, said = _defaults(kind), []
    for name, value in readable(kind, arguments).items():
        required = defaults.get(name) is inspect.Parameter.empty and name not in _BY_NAME
        said.append(literal(value) if required else f"{name}={literal(value)}")
    return f"nn.{kind}({', '.join(said)})"


def literal(value: Any) -> str:
    """Return plain data as Python source; a list is a tuple in a layer's arguments."""
    if isinstance(value, list | tuple):
        items = [literal(item) for item in value]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return repr(value)


@cache
def _defaults(kind: str) -> dict[str, Any]:
    parameters = list(inspect.signature(LAYER_CLASSES[kind].__init__).parameters.values())[1:]
    named = {one.name: one.default for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return named if named or kind not in ("RNN", "LSTM", "GRU") else dict(RECURRENT)


def _plain(name: str, value: Any) -> Any:
    """Return the one number that a value per axis comes to, if it does."""
    alone = name in _PER_AXIS or (name == "normalized_shape" and len(value) == 1)
    return value[0] if alone and isinstance(value, list) and all(item == value[0] for item in value) else value


def _same(value: Any, other: Any) -> bool:
    # 1 == True, which is no reason to leave one out.
    return type(value) is type(other) and bool(value == other)
