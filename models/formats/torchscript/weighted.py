"""Reads the constructor arguments of layers with weights from their calls in a trace; part of `layers`."""

from __future__ import annotations

from typing import Any, Final

from layerscope.models.formats.torchscript.calls import Constant, Own, TracedCall, Value, leaves
from layerscope.models.formats.torchscript.layer_calls import Chain, Read, padding_mode
from layerscope.models.formats.torchscript.operators import base_name

_PASSING: Final = frozenset({"clone", "contiguous", "detach", "to"})
"""What gives back the numbers that it is given."""


def convolution(chain: Chain) -> Read | None:
    """Read a convolution, with the padding that went before it where its mode is another than zeros."""
    calls = list(chain.calls)
    mode, around = "zeros", None
    if len(calls) == 2 and calls[1].first is calls[0]:
        mode, around = padding_mode(calls[0]), calls.pop(0)
    if len(calls) != 1 or base_name(calls[0].operator)[0] not in (
        "_convolution",
        "_convolution_mode",
        _plain(chain.kind),
    ):
        return None
    call, arguments = calls[0], calls[0].arguments
    weight = _weight(chain, call)
    if weight is None or arguments.get("transposed", False) or mode == "constant":
        return None
    padding = arguments["padding"]
    if around is not None:
        padding = _both_sides(around.arguments["pad"]) if padding in (0, [0] * (len(weight) - 2)) else None
    if padding is None:
        return None
    read = {
        "in_channels": weight[1] * arguments["groups"],
        "out_channels": weight[0],
        "kernel_size": list(weight[2:]),
        **{name: arguments[name] for name in ("stride", "dilation", "groups")},
        "padding": padding,
        "bias": arguments["bias"] is not None,
        "padding_mode": mode,
    }
    return Read(read, (around or call).first, call)


def transposed(chain: Chain) -> Read | None:
    """Read a transposed convolution."""
    call = chain.only("_convolution")
    weight = _weight(chain, call) if call is not None else None
    if call is None or weight is None or not call.arguments["transposed"]:
        return None
    arguments = call.arguments
    read = {
        "in_channels": weight[0],
        "out_channels": weight[1] * arguments["groups"],
        "kernel_size": list(weight[2:]),
        **{name: arguments[name] for name in ("stride", "padding", "output_padding", "dilation", "groups")},
        "bias": arguments["bias"] is not None,
        "padding_mode": "zeros",
    }
    return Read(read, call.first, call)


def _plain(kind: str) -> str:
    return kind.lower()


def _weight(chain: Chain, call: TracedCall) -> tuple[int, ...] | None:
    groups = call.arguments["groups"]
    if not chain.has(call, "weight", "bias") or "weight" not in chain.own or type(groups) is not int:
        return None
    shape = chain.own["weight"].stored.shape
    return shape if len(shape) >= 3 else None


def _both_sides(pad: Value) -> list[int] | None:
    """Return the padding of each axis, first axis first, from the list for both ends of each, last axis first."""
    pairs = [pad[index : index + 2] for index in range(0, len(pad), 2)][::-1] if isinstance(pad, list) else []
    same = all(len(pair) == 2 and type(pair[0]) is int and pair[0] == pair[1] for pair in pairs)
    return [pair[0] for pair in pairs] if pairs and same else None


def linear(chain: Chain) -> Read | None:
    """Read a linear layer: one call today, a product with the transposed weight and a sum in older traces."""
    bias: Value = None
    match [base_name(call.operator)[0] for call in chain.calls]:
        case ["linear"]:
            call = chain.calls[0]
            given, weight, bias = call.first, call.arguments["weight"], call.arguments["bias"]
        case ["t", "addmm"]:
            turned, call = chain.calls
            plain = call.arguments["beta"] == call.arguments["alpha"] == 1 and call.arguments["mat2"] is turned
            given, weight, bias = call.arguments["mat1"], turned.first if plain else None, call.first
        case ["t", "matmul"]:
            turned, call = chain.calls
            given, weight = call.first, turned.first if call.arguments["other"] is turned else None
        case ["t", "matmul", "add"]:
            turned, product, call = chain.calls
            plain = (
                product.arguments["other"] is turned and call.first is product and call.arguments.get("alpha", 1) == 1
            )
            given, weight, bias = product.first, turned.first if plain else None, call.arguments.get("1")
        case _:
            return None
    if "weight" not in chain.own or not chain.uses(weight, "weight") or not chain.uses(bias, "bias"):
        return None
    return Read(linear_arguments(chain.own["weight"].stored.shape, bias is not None), given, call)


def linear_arguments(shape: tuple[int, ...], bias: bool) -> dict[str, Any]:
    """Return the arguments of a linear layer whose weight has this shape."""
    return {"in_features": shape[-1] if shape else 0, "out_features": shape[0] if shape else 0, "bias": bias}


def recurrent(chain: Chain) -> Read | None:
    """Read a recurrent layer that begins with zeros; of its values, only the sequence may be used."""
    operators = {"LSTM": ("lstm",), "GRU": ("gru",), "RNN": ("rnn_tanh", "rnn_relu")}[chain.kind]
    *before, call = chain.calls or (TracedCall(""),)
    if call.operator not in operators or not all(map(_is_zeros, before)):
        return None
    arguments, weights = call.arguments, call.arguments["params"]
    own = list(chain.own.values())
    if not all(map(_is_zeros, leaves(arguments["hx"]))):
        return None
    if not isinstance(weights, list) or not _same(weights, own) or "weight_ih_l0" not in chain.own:
        return None
    wide, narrow = chain.own["weight_ih_l0"].stored.shape, chain.own["weight_hh_l0"].stored.shape
    read = {"input_size": wide[-1], "hidden_size": narrow[-1], "num_layers": arguments["num_layers"]}
    read |= {"bias": arguments["has_biases"], "dropout": arguments["dropout"]}
    read |= {name: arguments[name] for name in ("batch_first", "bidirectional")}
    if chain.kind == "LSTM":
        read["proj_size"] = 0
    if chain.kind == "RNN":
        read["nonlinearity"] = call.operator.removeprefix("rnn_")
    return Read(read, call.first, call)


def _is_zeros(value: Value) -> bool:
    while isinstance(value, TracedCall) and value.operator in _PASSING:
        value = value.first
    if isinstance(value, Constant):
        return not value.stored.array.any()
    return isinstance(value, TracedCall) and value.operator == "zeros"


def _same(weights: list[Value], own: list[Own]) -> bool:
    return len(weights) == len(own) and all(one is other for one, other in zip(weights, own, strict=True))
