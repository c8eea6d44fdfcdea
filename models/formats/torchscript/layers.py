"""Tells which layer of torch.nn the calls of a module in a trace are, and with which constructor arguments.

The calls must be exactly those of that layer, on its own tensors, which must have the names and shapes that the layer
would give them; else the module stays one of the user's own, whose calls become steps of the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.torchscript import layer_calls, norms, weighted
from layerscope.models.formats.torchscript.calls import Own, TracedCall, TracedLayer, Use, Value, leaves
from layerscope.models.formats.torchscript.layer_calls import Chain, Read
from layerscope.models.formats.torchscript.operators import OPERATORS, base_name
from layerscope.models.safe_form.graph_spec import layer_arguments
from layerscope.models.safe_form.operators import LAYER_CLASSES
from layerscope.schemas.errors import Refused

MAX_TRIED: Final = 3_000
"""Layers that are made to compare with, and their tensors. The most that a classifier of torchvision takes is 484."""

_MODULES: Final = "__torch__.torch.nn.modules."
_SAME_CLASS: Final[Mapping[str, str]] = {"NonDynamicallyQuantizableLinear": "Linear"}
_POOL: Final = "kernel_size stride padding"

_SIMPLE: Final[Mapping[str, str]] = {
    "ReLU": "relu inplace",
    "LeakyReLU": "leaky_relu negative_slope inplace",
    "ELU": "elu alpha inplace",
    "CELU": "celu alpha inplace",
    "SELU": "selu inplace",
    "GELU": "gelu approximate",
    "GLU": "glu dim",
    "SiLU": "silu inplace",
    "Mish": "mish inplace",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "log_sigmoid",
    "Tanh": "tanh",
    "Hardswish": "hardswish inplace",
    "Hardsigmoid": "hardsigmoid inplace",
    "Hardtanh": "hardtanh min_val max_val inplace",
    "Hardshrink": "hardshrink lambd",
    "Softshrink": "softshrink lambd",
    "Threshold": "threshold threshold value inplace",
    "Softplus": "softplus beta threshold",
    "Softmax": "softmax dim",
    "LogSoftmax": "log_softmax dim",
    "Flatten": "flatten start_dim end_dim",
    "Dropout": "dropout p inplace",
    "Dropout1d": "feature_dropout p inplace",
    "Dropout2d": "feature_dropout p inplace",
    "Dropout3d": "feature_dropout p inplace",
    "AlphaDropout": "alpha_dropout p inplace",
    "FeatureAlphaDropout": "feature_alpha_dropout p inplace",
    "MaxPool1d": f"max_pool1d {_POOL} dilation ceil_mode return_indices",
    "MaxPool2d": f"max_pool2d {_POOL} dilation ceil_mode return_indices",
    "MaxPool3d": f"max_pool3d {_POOL} dilation ceil_mode return_indices",
    "AvgPool1d": f"avg_pool1d {_POOL} ceil_mode count_include_pad",
    "AvgPool2d": f"avg_pool2d {_POOL} ceil_mode count_include_pad divisor_override",
    "AdaptiveAvgPool1d": "adaptive_avg_pool1d output_size",
    "AdaptiveAvgPool2d": "adaptive_avg_pool2d output_size",
    "AdaptiveAvgPool3d": "adaptive_avg_pool3d output_size",
    "AdaptiveMaxPool1d": "adaptive_max_pool1d output_size return_indices",
    "AdaptiveMaxPool2d": "adaptive_max_pool2d output_size return_indices",
    "PixelShuffle": "pixel_shuffle upscale_factor",
    "PixelUnshuffle": "pixel_unshuffle downscale_factor",
    "ChannelShuffle": "channel_shuffle groups",
}
"""Layers that are one operator: its name, then the constructor's arguments by the names of the operator's parameters."""

_UNUSED: Final = frozenset({"p", "train", "training"})

_READERS: Final[Mapping[str, Callable[[Chain], Read | None]]] = {
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), weighted.convolution),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), weighted.transposed),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), norms.batch_norm),
    **dict.fromkeys(("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"), norms.instance_norm),
    "Linear": weighted.linear,
    "GroupNorm": norms.group_norm,
    "LayerNorm": norms.layer_norm,
    "RMSNorm": norms.rms_norm,
    "PReLU": layer_calls.prelu,
    "ReLU6": layer_calls.relu6,
    "Softmax2d": layer_calls.softmax2d,
    "Upsample": layer_calls.upsample,
    **dict.fromkeys(layer_calls.PADS, layer_calls.pad),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), weighted.recurrent),
}


class Recogniser:
    """Recognises layers by their calls and tensors."""

    def __init__(self, tensors: Mapping[str, Own]) -> None:
        """Recognise layers of a model that has these tensors, by their full names."""
        self._own: dict[str, dict[str, Own]] = {}
        self._tried: dict[str, bool] = {}
        self._left = MAX_TRIED
        for name, own in tensors.items():
            module, _, leaf = name.rpartition(".")
            self._own.setdefault(module, {})[leaf] = own

    def layer(self, use: Use) -> tuple[TracedLayer, Value] | None:
        """Return the layer that one call of a module is, and what it is given; None where it is none that is known.

        Raises:
            Refused: `bad-argument`, a layer with an argument beyond its limits; `too-many-modules`.
        """
        kind = self.kind(use.kind)
        if kind is None:
            return None
        own = self._own.get(use.name, {})
        chain = Chain(kind, _significant(use.calls), own, use.result)
        read = _READERS[kind](chain) if kind in _READERS else _simple(chain)
        if read is None or not any(read.given is value for value in use.inputs) or not chain.returns(read.output):
            return None
        if any(isinstance(value, TracedCall) for value in leaves(list(read.arguments.values()))):
            return None
        arguments = layer_arguments(use.name, kind, read.arguments)  # within limits, before a layer is made with them
        return (TracedLayer(use.name, kind, arguments), read.given) if self._fits(kind, arguments, own) else None

    def kind(self, qualified: str) -> str | None:
        """Return the class by which the vocabulary knows a class of a trace, or None."""
        name = qualified.rpartition(".")[2]
        kind = _SAME_CLASS.get(name, name)
        known = qualified.startswith(_MODULES) and (kind in _SIMPLE or kind in _READERS)
        return kind if known else None

    def uncalled(self, name: str, qualified: str) -> TracedLayer | None:
        """Return the layer that a module is whose calls do not tell: one without arguments, or with all in its tensors."""
        own = self._own.get(name, {})
        if qualified == f"{_MODULES}linear.Identity":
            return TracedLayer(name, "Identity", {})
        if self.kind(qualified) != "Linear" or "weight" not in own:
            return None
        arguments = layer_arguments(
            name, "Linear", weighted.linear_arguments(own["weight"].stored.shape, "bias" in own)
        )
        return TracedLayer(name, "Linear", arguments) if self._fits("Linear", arguments, own) else None

    def _fits(self, kind: str, arguments: Mapping[str, Any], own: Mapping[str, Own]) -> bool:
        """Return whether a layer made with these arguments has just these tensors; equal ones are tried once."""
        shapes = {name: tensor.stored.shape for name, tensor in own.items()}
        key = repr((kind, arguments, shapes))
        if key not in self._tried:
            self._left -= 1 + len(own)
            if self._left < 0:
                raise Refused("too-many-modules", "The model has too many layers that are not alike.", UPLOAD_CALL)
            self._tried[key] = _shapes(kind, arguments) == shapes
        return self._tried[key]


def _significant(calls: Sequence[TracedCall]) -> list[TracedCall]:
    """Return the calls on tensors, without the counting of batches that training does."""
    return [
        call
        for call in calls
        if not call.number
        and call.operator != "item"
        and not (call.in_place and isinstance(call.first, Own) and call.first.name.endswith("num_batches_tracked"))
    ]


def _simple(chain: Chain) -> Read | None:
    operator, *names = _SIMPLE[chain.kind].split()
    call = chain.only(operator)
    if call is None or (call.in_place and "inplace" not in names):
        return None
    arguments: dict[str, Any] = {}
    for name in names:
        if name == "inplace":
            arguments[name] = call.in_place
        elif name == "return_indices":
            arguments[name] = False
        else:
            arguments[name] = layer_calls.sizes_of(call, call.arguments[name])
    if arguments.get("stride") == []:
        arguments["stride"] = arguments["kernel_size"]
    left = {parameter.name: parameter for parameter in OPERATORS[base_name(call.operator)[0]].parameters[1:]}
    for name in left.keys() - set(names) - _UNUSED:
        if not left[name].ignored and call.arguments[name] != left[name].default:
            return None
    return Read(arguments, call.first, call)


def _shapes(kind: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the tensors of a layer made with these arguments; None where torch makes none with them."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = LAYER_CLASSES[kind](**plain)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError):
        return None
    return {name: tuple(tensor.shape) for name, tensor in (*layer.named_parameters(), *layer.named_buffers())}
