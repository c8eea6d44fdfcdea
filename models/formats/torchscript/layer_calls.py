"""The calls of one module in a trace, and how layers without weights are read from them; part of `layers`.

A reading function returns what it read, or None where the calls are not those of such a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from layerscope.models.formats.torchscript.calls import Own, TracedCall, Value
from layerscope.models.formats.torchscript.operators import PADDING, UPSAMPLING, base_name

PADS: Final[Mapping[str, str]] = {
    "ZeroPad1d": "constant",
    "ZeroPad2d": "constant",
    "ConstantPad2d": "constant",
    "ReflectionPad1d": "reflect",
    "ReflectionPad2d": "reflect",
    "ReplicationPad2d": "replicate",
    "CircularPad2d": "circular",
}


@dataclass(frozen=True, slots=True)
class Read:
    """A layer's constructor arguments, what it is given, and the call whose value it gives back."""

    arguments: dict[str, Any]
    given: Value
    output: TracedCall


@dataclass(frozen=True, slots=True)
class Chain:
    """The calls of one module on tensors, its own tensors by name, and what it gives back."""

    kind: str
    calls: Sequence[TracedCall]
    own: Mapping[str, Own]
    result: Value

    def only(self, *operators: str) -> TracedCall | None:
        """Return the one call, if it is of one of these operators."""
        return self.calls[0] if len(self.calls) == 1 and base_name(self.calls[0].operator)[0] in operators else None

    def returns(self, call: TracedCall) -> bool:
        """Return whether the module gives back what `call` gives, or the first thing of it."""
        result = self.result
        if isinstance(result, TracedCall) and result.operator == "item":
            return result.first is call and result.arguments["index"] == 0
        return result is call

    def uses(self, value: Value, name: str) -> bool:
        """Return whether `value` is the module's own tensor `name`, or None where it has none."""
        return value is self.own.get(name)

    def has(self, call: TracedCall, *names: str) -> bool:
        """Return whether a call uses the module's own tensors for the parameters of these names."""
        return all(self.uses(call.arguments[name], name) for name in names)


def sizes_of(call: TracedCall, value: Value) -> Value:
    """Return a list of sizes, None where it is the size that the call's input has on that axis."""
    if not isinstance(value, list):
        return value
    # Pictures are batch × channels × height × width.
    return [None if _is_own(call, item, (index + 2, index - len(value))) else item for index, item in enumerate(value)]


def _is_own(call: TracedCall, item: Value, axes: tuple[int, int]) -> bool:
    return (
        isinstance(item, TracedCall)
        and item.operator == "size"
        and item.first is call.first
        and item.arguments["1"] in axes
    )


def padding_mode(call: TracedCall) -> str:
    """Return the mode of a padding operator."""
    base = base_name(call.operator)[0]
    return PADDING.get(base, call.arguments.get("mode", "constant") if base == "pad" else "constant")


def prelu(chain: Chain) -> Read | None:
    """Read a PReLU."""
    call = chain.only("prelu")
    if call is None or "weight" not in chain.own or not chain.has(call, "weight"):
        return None
    return Read({"num_parameters": (*chain.own["weight"].stored.shape, 0)[0]}, call.first, call)


def relu6(chain: Chain) -> Read | None:
    """Read a ReLU6, which traces write as a hardtanh between 0 and 6."""
    call = chain.only("hardtanh", "relu6")
    limits = (call.arguments.get("min_val", 0), call.arguments.get("max_val", 6)) if call else None
    return Read({"inplace": call.in_place}, call.first, call) if call and limits == (0, 6) else None


def softmax2d(chain: Chain) -> Read | None:
    """Read a softmax over channels."""
    call = chain.only("softmax")
    return Read({}, call.first, call) if call and call.arguments["dim"] in (1, -3) else None


def pad(chain: Chain) -> Read | None:
    """Read a padding layer."""
    call = chain.only("pad", *PADDING)
    if call is None or padding_mode(call) != PADS[chain.kind]:
        return None
    value = call.arguments.get("value") or 0
    arguments = {"padding": call.arguments["pad"]}
    if chain.kind == "ConstantPad2d":
        return Read(arguments | {"value": value}, call.first, call)
    return Read(arguments, call.first, call) if value == 0 else None


def upsample(chain: Chain) -> Read | None:
    """Read an upsampling layer."""
    call = chain.only(*UPSAMPLING)
    return Read(interpolation(call) | {"recompute_scale_factor": None}, call.first, call) if call else None


def interpolation(call: TracedCall) -> dict[str, Any]:
    """Return size or scale factor, mode and corners of an upsampling operator.

    Traces of old versions have sizes computed from the scale, new ones the scale itself.
    """
    arguments = call.arguments
    size, scale = arguments["size"], arguments["scale_factor"]
    if isinstance(scale, float):
        scale = [scale, arguments["scale_w"]] if arguments.get("scale_w") is not None else [scale]
    computed = [_scale(call, item) for item in size] if isinstance(size, list) else [None]
    if None not in computed:
        scale = computed
    read: dict[str, Any] = {"size": None if scale is not None else size, "scale_factor": scale}
    mode = UPSAMPLING[base_name(call.operator)[0]]
    return read | {"mode": mode, "align_corners": arguments.get("align_corners")}


def _scale(call: TracedCall, item: Value) -> float | None:
    """Return s where a size is floor(s × a size of the input)."""
    match item:
        case TracedCall(
            operator="floor", arguments={"0": TracedCall(operator="operator.mul", arguments={"0": size, "1": scale})}
        ):
            of_input = isinstance(size, TracedCall) and size.operator == "size" and size.first is call.first
            return scale if of_input and isinstance(scale, int | float) else None
    return None
