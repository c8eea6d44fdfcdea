"""Reads the constructor arguments of normalising layers from their calls in a trace; part of `layers`."""

from __future__ import annotations

from typing import Final

from layerscope.models.formats.torchscript.calls import TracedCall, Value
from layerscope.models.formats.torchscript.layer_calls import Chain, Read

_PASSING: Final = frozenset(
    {
        "Identity",
        "ReLU",
        "ReLU6",
        "LeakyReLU",
        "PReLU",
        "ELU",
        "CELU",
        "SELU",
        "GELU",
        "SiLU",
        "Mish",
        "Sigmoid",
        "Tanh",
    }
    | {
        "Hardswish",
        "Hardsigmoid",
        "Softplus",
        "Dropout",
        "Dropout2d",
        "Upsample",
        "MaxPool1d",
        "MaxPool2d",
        "AvgPool1d",
    }
    | {"AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "ZeroPad2d", "ReflectionPad2d", "ReplicationPad2d"}
)
"""Layers that give as many channels as they are given."""
_STATISTICS: Final = ("running_mean", "running_var")


def batch_norm(chain: Chain) -> Read | None:
    """Read a batch norm; one that was traced in training is the same layer."""
    return _norm(chain, "batch_norm")


def instance_norm(chain: Chain) -> Read | None:
    """Read an instance norm; without tensors of its own, the layers before it tell how many channels it has."""
    return _norm(chain, "instance_norm")


def _norm(chain: Chain, operator: str) -> Read | None:
    call = chain.only(operator)
    if call is None or not chain.has(call, "weight", "bias", *_STATISTICS):
        return None
    tensor = chain.own.get("weight") or chain.own.get("running_mean")
    features = tensor.stored.shape[0] if tensor and tensor.stored.shape else _channels(call.first)
    momentum = call.arguments["momentum"]
    read = {
        "num_features": features,
        "eps": call.arguments["eps"],
        "momentum": momentum if isinstance(momentum, int | float) else None,
        "affine": call.arguments["weight"] is not None,
        "track_running_stats": call.arguments["running_mean"] is not None,
    }
    return Read(read, call.first, call) if features else None


def group_norm(chain: Chain) -> Read | None:
    """Read a group norm."""
    call = chain.only("group_norm")
    if call is None or not chain.has(call, "weight", "bias"):
        return None
    weight = chain.own.get("weight")
    channels = weight.stored.shape[0] if weight and weight.stored.shape else _channels(call.first)
    read = {"num_groups": call.arguments["num_groups"], "num_channels": channels, "eps": call.arguments["eps"]}
    return Read(read | {"affine": weight is not None}, call.first, call) if channels else None


def layer_norm(chain: Chain) -> Read | None:
    """Read a layer norm."""
    call = chain.only("layer_norm")
    if call is None or not chain.has(call, "weight", "bias"):
        return None
    read = {"normalized_shape": call.arguments["normalized_shape"], "eps": call.arguments["eps"]}
    read |= {"elementwise_affine": "weight" in chain.own, "bias": "bias" in chain.own}
    return Read(read, call.first, call)


def rms_norm(chain: Chain) -> Read | None:
    """Read a root-mean-square norm."""
    call = chain.only("rms_norm")
    if call is None or not chain.has(call, "weight"):
        return None
    read = {"normalized_shape": call.arguments["normalized_shape"], "eps": call.arguments["eps"]}
    return Read(read | {"elementwise_affine": "weight" in chain.own}, call.first, call)


def _channels(value: Value) -> int | None:
    """Return how many channels a value has, if the layers before it tell."""
    while isinstance(value, TracedCall) and value.layer is not None:
        arguments = value.layer.arguments
        for name in ("out_channels", "num_features", "num_channels"):
            if name in arguments:
                return int(arguments[name])
        if value.layer.kind not in _PASSING:
            return None
        value = value.first
    return None
