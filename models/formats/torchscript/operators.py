"""What each operator in a trace is in the words of the safe form: the allow-list of the TorchScript reader, as data.

An operator that is neither here nor, under its own name, in `functions.models.vocabulary` is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from layerscope.models.safe_form.vocabulary import FUNCTIONS, METHODS

REQUIRED: Final = object()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operator: its name in the target's call, and its default or `REQUIRED`."""

    name: str
    default: Any
    ignored: bool
    """Results do not depend on it: flags of a library, layouts of the memory."""
    fixed: bool
    """The target has no such parameter, so it must have its default."""


@dataclass(frozen=True, slots=True)
class TraceOperator:
    """The function of the safe form that does what an operator does, and the operator's parameters in their order."""

    target: str
    parameters: tuple[Parameter, ...]


_SIGNATURES: Final[Mapping[str, str]] = {
    "relu": "torch.relu input",
    "sigmoid": "torch.sigmoid input",
    "tanh": "torch.tanh input",
    "softmax": "torch.softmax input dim dtype=null",
    "log_softmax": "torch.log_softmax input dim dtype=null",
    "flatten": "torch.flatten input start_dim=0 end_dim=-1",
    "t": "torch.t input",
    "matmul": "torch.matmul input other",
    "addmm": "torch.addmm input mat1 mat2 beta=1 alpha=1",
    "adaptive_avg_pool1d": "functional.adaptive_avg_pool1d input output_size",
    "adaptive_avg_pool2d": "functional.adaptive_avg_pool2d input output_size",
    "adaptive_avg_pool3d": "functional.adaptive_avg_pool3d input output_size",
    "adaptive_max_pool1d": "functional.adaptive_max_pool1d input output_size",
    "adaptive_max_pool2d": "functional.adaptive_max_pool2d input output_size",
    "avg_pool1d": "functional.avg_pool1d input kernel_size stride=[] padding=0 ceil_mode=false count_include_pad=true",
    "avg_pool2d": "functional.avg_pool2d input kernel_size stride=[] padding=0 ceil_mode=false count_include_pad=true "
    "divisor_override=null",
    "avg_pool3d": "functional.avg_pool3d input kernel_size stride=[] padding=0 ceil_mode=false count_include_pad=true "
    "divisor_override=null",
    "max_pool1d": "functional.max_pool1d input kernel_size stride=[] padding=0 dilation=1 ceil_mode=false",
    "max_pool2d": "functional.max_pool2d input kernel_size stride=[] padding=0 dilation=1 ceil_mode=false",
    "max_pool3d": "functional.max_pool3d input kernel_size stride=[] padding=0 dilation=1 ceil_mode=false",
    "batch_norm": "functional.batch_norm input weight bias running_mean running_var training momentum eps !cudnn=true",
    "instance_norm": "functional.instance_norm input weight bias running_mean running_var use_input_stats momentum eps "
    "!cudnn=true",
    "layer_norm": "functional.layer_norm input normalized_shape weight=null bias=null eps=1e-05 !cudnn=true",
    "group_norm": "functional.group_norm input num_groups weight=null bias=null eps=1e-05 !cudnn=true",
    "rms_norm": "functional.rms_norm input normalized_shape weight=null eps=null",
    "linear": "functional.linear input weight bias=null",
    "conv1d": "functional.conv1d input weight bias=null stride=1 padding=0 dilation=1 groups=1",
    "conv2d": "functional.conv2d input weight bias=null stride=1 padding=0 dilation=1 groups=1",
    "conv3d": "functional.conv3d input weight bias=null stride=1 padding=0 dilation=1 groups=1",
    "_convolution": "convolution input weight bias stride padding dilation transposed output_padding groups !benchmark "
    "!deterministic !cudnn !tf32=true",
    "_convolution_mode": "convolution input weight bias stride padding dilation groups",
    "prelu": "functional.prelu input weight",
    "leaky_relu": "functional.leaky_relu input negative_slope=0.01",
    "elu": "functional.elu input alpha=1 ?scale=1 ?input_scale=1",
    "celu": "functional.celu input alpha=1.0",
    "selu": "functional.selu input",
    "gelu": 'functional.gelu input approximate="none"',
    "glu": "functional.glu input dim=-1",
    "silu": "functional.silu input",
    "mish": "functional.mish input",
    "relu6": "functional.relu6 input",
    "hardtanh": "functional.hardtanh input min_val=-1 max_val=1",
    "hardswish": "functional.hardswish input",
    "hardsigmoid": "functional.hardsigmoid input",
    "hardshrink": "layer input lambd=0.5",
    "softshrink": "layer input lambd=0.5",
    "log_sigmoid": "functional.logsigmoid input",
    "softplus": "functional.softplus input beta=1 threshold=20",
    "threshold": "functional.threshold input threshold value",
    "pixel_shuffle": "functional.pixel_shuffle input upscale_factor",
    "pixel_unshuffle": "functional.pixel_unshuffle input downscale_factor",
    "channel_shuffle": "layer input groups",
    "scaled_dot_product_attention": "functional.scaled_dot_product_attention query key value attn_mask=null "
    "dropout_p=0.0 is_causal=false scale=null ?enable_gqa=false",
    "im2col": "functional.unfold input kernel_size dilation padding stride",
    "col2im": "functional.fold input output_size kernel_size dilation padding stride",
    "pad": 'functional.pad input pad mode="constant" value=null',
    "constant_pad_nd": "functional.pad input pad value=0",
    "reflection_pad1d": 'functional.pad input pad mode="reflect"',
    "reflection_pad2d": 'functional.pad input pad mode="reflect"',
    "replication_pad1d": 'functional.pad input pad mode="replicate"',
    "replication_pad2d": 'functional.pad input pad mode="replicate"',
    "upsample_nearest1d": "functional.interpolate input size scale_factor=null",
    "upsample_nearest2d": "functional.interpolate input size scale_factor=null scale_w=null",
    "_upsample_nearest_exact2d": "functional.interpolate input size scale_factor=null scale_w=null",
    "upsample_linear1d": "functional.interpolate input size align_corners scale_factor=null",
    "upsample_bilinear2d": "functional.interpolate input size align_corners scale_factor=null scale_w=null",
    "upsample_bicubic2d": "functional.interpolate input size align_corners scale_factor=null scale_w=null",
    "dropout": "dropout input p train",
    "alpha_dropout": "dropout input p train",
    "feature_dropout": "dropout input p train",
    "feature_alpha_dropout": "dropout input p train",
    "slice": "slice input dim=0 start=null end=null step=1",
    "index": "index input indices",
    "fill": "fill input value",
    "zero": "fill input",
    "masked_fill": "masked_fill input mask value",
    "rsub": "rsub input other alpha=1",
    "linalg_vector_norm": "torch.norm input p=2 dim=null keepdim=false dtype=null",
    "reciprocal": "reciprocal input",
    "split_with_sizes": "torch.split input split_size_or_sections dim=0",
    "to": "to input",
    "lstm": "layer input hx params has_biases num_layers dropout train bidirectional batch_first",
    "gru": "layer input hx params has_biases num_layers dropout train bidirectional batch_first",
    "rnn_tanh": "layer input hx params has_biases num_layers dropout train bidirectional batch_first",
    "rnn_relu": "layer input hx params has_biases num_layers dropout train bidirectional batch_first",
    "zeros": "fresh size dtype=null layout=null device=null pin_memory=null",
    "ones": "fresh size dtype=null layout=null device=null pin_memory=null",
    "full": "fresh size fill_value dtype=null layout=null device=null pin_memory=null",
    "arange": "fresh start end=null step=null dtype=null layout=null device=null pin_memory=null",
    "bitwise_not": "operator.invert input",
}
"""By the operator's name: a target, then parameters; `!` before one says that results do not depend on it, `?` that the
target does not have it. Targets without a dot are written by `nodes`; a `layer` has no function."""

UPSAMPLING: Final[Mapping[str, str]] = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "_upsample_nearest_exact2d": "nearest-exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_bicubic2d": "bicubic",
}
PADDING: Final[Mapping[str, str]] = {
    "constant_pad_nd": "constant",
    "reflection_pad1d": "reflect",
    "reflection_pad2d": "reflect",
    "replication_pad1d": "replicate",
    "replication_pad2d": "replicate",
}
NUMBERS: Final[Mapping[str, str]] = {
    "add": "operator.add",
    "sub": "operator.sub",
    "mul": "operator.mul",
    "div": "operator.truediv",
    "floor_divide": "operator.floordiv",
    "remainder": "operator.mod",
    "neg": "operator.neg",
}
"""Arithmetic on sizes, which a trace does with tensors and the safe form with Python's numbers."""

DTYPES: Final = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16"} | {
    6: "float32",
    7: "float64",
    11: "bool",
    15: "bfloat16",
}
WITHOUT_EFFECT: Final = frozenset(
    {"memory_format", "implicit", "layout", "device", "pin_memory", "path", "non_blocking"}
)


def _parameter(text: str) -> Parameter:
    name, _, default = text.lstrip("!?").partition("=")
    return Parameter(name, json.loads(default) if default else REQUIRED, text[0] == "!", text[0] == "?")


def _operator(signature: str) -> TraceOperator:
    target, *parameters = signature.split()
    return TraceOperator(target, tuple(_parameter(text) for text in parameters))


OPERATORS: Final[Mapping[str, TraceOperator]] = {name: _operator(signature) for name, signature in _SIGNATURES.items()}
_OWN_IN_PLACE: Final = frozenset({"fill_", "zero_", "masked_fill_"})


def base_name(name: str) -> tuple[str, bool]:
    """Return the name of an operator without the underscore of its form that works in place, and whether it had one."""
    return (name[:-1], True) if name.endswith("_") and not name.endswith("__") else (name, False)


def known(name: str) -> bool:
    """Return whether an operator may stand in a trace."""
    base, _ = base_name(name)
    return base in OPERATORS or name in METHODS or not FUNCTIONS.isdisjoint((f"torch.{name}", f"operator.{name}"))
