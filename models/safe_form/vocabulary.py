"""What a model in the safe form may be made of: layers with their arguments, functions, tensor methods and attributes.

Pure data, without torch: `graph_spec` checks a file against it, `operators` gives each name its callable, and `tracing`
looks a live layer's arguments up by the same names. To admit one more layer, add one line to `LAYERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

Check = Callable[[object], bool]


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _real(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high  # type: ignore[operator]


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _one_of(*choices: str) -> Check:
    return lambda value: isinstance(value, str) and value in choices


def _each(check: Check, lengths: tuple[int, ...]) -> Check:
    return lambda value: isinstance(value, list) and len(value) in lengths and all(check(item) for item in value)


def _either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def _none(value: object) -> bool:
    return value is None


def _per_axis(check: Check, axes: int) -> Check:
    return _either(check, _each(check, (1, axes)))


_COUNT = _whole(1, 1_000_000)
_SMALL = _whole(1, 1_024)
_WINDOW = _whole(1, 4_096)
_PAD = _whole(0, 1_024)
_SIGNED_PAD = _whole(-1_024, 1_024)
_DIM = _whole(-8, 8)
_RATIO = _real(0.0, 1.0)
_NUMBER = _real(-1e6, 1e6)
_SCALE = _real(1 / 64, 16)
_MODES = _one_of("zeros", "reflect", "replicate", "circular")
_SIZE = _either(_none, _whole(1, 4_096))

Arguments = Mapping[str, Check]


def _convolution(axes: int) -> Arguments:
    return {
        "in_channels": _COUNT,
        "out_channels": _COUNT,
        "kernel_size": _per_axis(_SMALL, axes),
        "stride": _per_axis(_SMALL, axes),
        "padding": _either(_per_axis(_PAD, axes), _one_of("same", "valid")),
        "dilation": _per_axis(_SMALL, axes),
        "groups": _COUNT,
        "bias": _flag,
        "padding_mode": _MODES,
    }


def _transposed(axes: int) -> Arguments:
    plain = {name: check for name, check in _convolution(axes).items() if name != "padding"}
    return plain | {"padding": _per_axis(_PAD, axes), "output_padding": _per_axis(_PAD, axes)}


def _max_pool(axes: int) -> Arguments:
    sizes = {name: _per_axis(_SMALL, axes) for name in ("kernel_size", "stride", "dilation")}
    return sizes | {"padding": _per_axis(_PAD, axes), "return_indices": _flag, "ceil_mode": _flag}


def _avg_pool(axes: int) -> Arguments:
    sizes = {name: _per_axis(_WINDOW, axes) for name in ("kernel_size", "stride")}
    return sizes | {"padding": _per_axis(_PAD, axes), "ceil_mode": _flag, "count_include_pad": _flag}


def _recurrent(**more: Check) -> Arguments:
    flags = dict.fromkeys(("bias", "batch_first", "bidirectional"), _flag)
    sizes = {"input_size": _COUNT, "hidden_size": _whole(1, 65_536), "num_layers": _whole(1, 64)}
    return sizes | flags | {"dropout": _RATIO} | more


_NORM: Arguments = {
    "num_features": _COUNT,
    "eps": _RATIO,
    "momentum": _either(_none, _RATIO),
    "affine": _flag,
    "track_running_stats": _flag,
}
_DROPOUT: Arguments = {"p": _RATIO, "inplace": _flag}
_INPLACE: Arguments = {"inplace": _flag}
_SHAPE = _each(_COUNT, (1, 2, 3, 4))
_ALONG: Arguments = {"dim": _either(_none, _DIM)}

LAYERS: Final[Mapping[str, Arguments]] = {
    "Conv1d": _convolution(1),
    "Conv2d": _convolution(2),
    "Conv3d": _convolution(3),
    "ConvTranspose1d": _transposed(1),
    "ConvTranspose2d": _transposed(2),
    "ConvTranspose3d": _transposed(3),
    "Linear": {"in_features": _COUNT, "out_features": _COUNT, "bias": _flag},
    "Bilinear": {"in1_features": _COUNT, "in2_features": _COUNT, "out_features": _COUNT, "bias": _flag},
    "Embedding": {"num_embeddings": _COUNT, "embedding_dim": _COUNT, "max_norm": _none},
    "MultiheadAttention": {
        "embed_dim": _COUNT,
        "num_heads": _SMALL,
        "dropout": _RATIO,
        "bias": _flag,
        "add_zero_attn": _flag,
        "kdim": _COUNT,
        "vdim": _COUNT,
        "batch_first": _flag,
    },
    "RNN": _recurrent(nonlinearity=_one_of("tanh", "relu")),
    "LSTM": _recurrent(proj_size=_whole(0, 65_536)),
    "GRU": _recurrent(),
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    "BatchNorm3d": _NORM,
    "InstanceNorm1d": _NORM,
    "InstanceNorm2d": _NORM,
    "InstanceNorm3d": _NORM,
    "GroupNorm": {"num_groups": _COUNT, "num_channels": _COUNT, "eps": _RATIO, "affine": _flag},
    "LayerNorm": {"normalized_shape": _SHAPE, "eps": _RATIO, "elementwise_affine": _flag, "bias": _flag},
    "RMSNorm": {"normalized_shape": _SHAPE, "eps": _either(_none, _RATIO), "elementwise_affine": _flag},
    "LocalResponseNorm": {"size": _SMALL, "alpha": _NUMBER, "beta": _NUMBER, "k": _NUMBER},
    "Identity": {},
    "Flatten": {"start_dim": _DIM, "end_dim": _DIM},
    "Unflatten": {"dim": _DIM, "unflattened_size": _each(_whole(-1, 1_000_000), (1, 2, 3, 4))},
    "Dropout": _DROPOUT,
    "Dropout1d": _DROPOUT,
    "Dropout2d": _DROPOUT,
    "Dropout3d": _DROPOUT,
    "AlphaDropout": _DROPOUT,
    "FeatureAlphaDropout": _DROPOUT,
    "ZeroPad1d": {"padding": _each(_SIGNED_PAD, (2,))},
    "ZeroPad2d": {"padding": _each(_SIGNED_PAD, (4,))},
    "ConstantPad2d": {"padding": _each(_SIGNED_PAD, (4,)), "value": _NUMBER},
    "ReflectionPad1d": {"padding": _each(_PAD, (2,))},
    "ReflectionPad2d": {"padding": _each(_PAD, (4,))},
    "ReplicationPad2d": {"padding": _each(_PAD, (4,))},
    "CircularPad2d": {"padding": _each(_PAD, (4,))},
    "MaxPool1d": _max_pool(1),
    "MaxPool2d": _max_pool(2),
    "MaxPool3d": _max_pool(3),
    "AvgPool1d": _avg_pool(1),
    "AvgPool2d": {**_avg_pool(2), "divisor_override": _either(_none, _COUNT)},
    "LPPool2d": {
        "norm_type": _real(1, 64),
        "kernel_size": _per_axis(_SMALL, 2),
        "stride": _either(_none, _per_axis(_SMALL, 2)),
        "ceil_mode": _flag,
    },
    "AdaptiveAvgPool1d": {"output_size": _per_axis(_SIZE, 1)},
    "AdaptiveAvgPool2d": {"output_size": _per_axis(_SIZE, 2)},
    "AdaptiveAvgPool3d": {"output_size": _per_axis(_SIZE, 3)},
    "AdaptiveMaxPool1d": {"output_size": _per_axis(_SIZE, 1), "return_indices": _flag},
    "AdaptiveMaxPool2d": {"output_size": _per_axis(_SIZE, 2), "return_indices": _flag},
    "Upsample": {
        "size": _per_axis(_SIZE, 2),
        "scale_factor": _either(_none, _per_axis(_SCALE, 2)),
        "mode": _one_of("nearest", "nearest-exact", "linear", "bilinear", "bicubic"),
        "align_corners": _either(_none, _flag),
        "recompute_scale_factor": _either(_none, _flag),
    },
    "PixelShuffle": {"upscale_factor": _whole(1, 64)},
    "PixelUnshuffle": {"downscale_factor": _whole(1, 64)},
    "ChannelShuffle": {"groups": _SMALL},
    "ReLU": _INPLACE,
    "ReLU6": _INPLACE,
    "LeakyReLU": {"negative_slope": _NUMBER, "inplace": _flag},
    "ELU": {"alpha": _NUMBER, "inplace": _flag},
    "CELU": {"alpha": _NUMBER, "inplace": _flag},
    "SELU": _INPLACE,
    "PReLU": {"num_parameters": _COUNT},
    "GELU": {"approximate": _one_of("none", "tanh")},
    "GLU": {"dim": _DIM},
    "SiLU": _INPLACE,
    "Mish": _INPLACE,
    "Sigmoid": {},
    "LogSigmoid": {},
    "Tanh": {},
    "Tanhshrink": {},
    "Softsign": {},
    "Hardswish": _INPLACE,
    "Hardsigmoid": _INPLACE,
    "Hardtanh": {"min_val": _NUMBER, "max_val": _NUMBER, "inplace": _flag},
    "Hardshrink": {"lambd": _NUMBER},
    "Softshrink": {"lambd": _NUMBER},
    "Threshold": {"threshold": _NUMBER, "value": _NUMBER, "inplace": _flag},
    "Softplus": {"beta": _NUMBER, "threshold": _NUMBER},
    "Softmax": _ALONG,
    "Softmin": _ALONG,
    "LogSoftmax": _ALONG,
    "Softmax2d": {},
}


def _names(prefix: str, words: str) -> tuple[str, ...]:
    return tuple(prefix + word for word in words.split())


FUNCTIONS: Final = frozenset(
    (
        *_names("math.", "ceil floor sqrt"),
        *_names("linalg.", "norm vector_norm"),
        *_names(
            "operator.", "abs add eq floordiv ge getitem gt invert le lt matmul mod mul ne neg pos pow sub truediv"
        ),
        *_names(
            "torch.",
            """
            abs add addcmul addmm amax amin argmax bmm cat chunk clamp clamp_max clamp_min clone concat cos
            cumsum div einsum exp flatten flip float_power log log_softmax logsumexp matmul max
            maximum mean min minimum mm movedim mul narrow neg norm ones_like permute pow relu
            reshape roll rsqrt select selu sigmoid sin softmax split sqrt square squeeze stack std
            sub sum swapaxes t tanh tile transpose unbind unflatten unsqueeze var var_mean where
            zeros_like
            """,
        ),
        *_names(
            "functional.",
            """
            adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
            adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d batch_norm celu conv1d conv2d
            conv3d conv_transpose1d conv_transpose2d elu fold gelu glu group_norm hardsigmoid hardswish
            hardtanh instance_norm interpolate layer_norm leaky_relu linear local_response_norm
            log_softmax logsigmoid lp_pool2d max_pool1d max_pool2d max_pool3d mish normalize pad
            pixel_shuffle pixel_unshuffle prelu relu relu6 rms_norm scaled_dot_product_attention
            selu silu softmax softmin softplus softsign threshold unfold
            """,
        ),
        *_names("torchvision.", "_get_relative_position_bias _patch_merging_pad shifted_window_attention"),
    )
)
"""By module: `functional` is `torch.nn.functional`, `linalg` is `torch.linalg`, `torchvision` the parts of Swin."""

METHODS: Final = frozenset(
    _names(
        "",
        """
        abs add add_ amax amin argmax bmm chunk clamp clamp_ clamp_max clamp_min clone contiguous
        cos cumsum detach dim div div_ exp expand expand_as flatten flip float index_select log
        log_softmax logsumexp matmul max mean min mm movedim mul mul_ narrow neg new_ones new_zeros
        norm numel permute pow relu relu_ repeat repeat_interleave reshape reshape_as roll rsqrt
        select sigmoid sigmoid_ sin size softmax split sqrt square squeeze std sub sub_ sum swapaxes
        swapdims t tanh tanh_ tile to transpose type_as unbind unflatten unfold unsqueeze var view
        view_as
        """,
    )
)
"""Of `torch.Tensor`."""

ATTRIBUTES: Final = frozenset({"shape", "ndim", "dtype", "device", "T", "mT", "values", "indices"})
"""Of `torch.Tensor`, and of the pairs that `max` and `min` return."""

STRINGS: Final = frozenset(
    _names(
        "",
        """
        area bicubic bilinear circular constant floor linear nearest nearest-exact none reflect
        replicate same tanh trunc valid zeros
        """,
    )
)
"""Text that may be an argument; `torch.einsum` takes its equation besides."""

ARGUMENT_DTYPES: Final = frozenset(
    {"bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8"}
)
