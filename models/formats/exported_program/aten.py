"""ATen's operators of exported programs in the words that traces have, so that both share one vocabulary.

A program that was exported as it is calls what a trace calls. One that was decomposed calls the core operators instead, each
with all that autograd or a backend may want besides: those are rewritten here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from layerscope.models.formats.torchscript.calls import Own, Value

Arguments = list[Value]
Call = tuple[str, Arguments]

ASSERTIONS: Final = frozenset(
    {
        "_assert_scalar",
        "_assert_async",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    }
)
"""What only checks, and gives nothing back."""
ALIASES: Final = frozenset({"lift_fresh_copy", "lift_fresh", "alias", "detach", "detach_"})
"""What gives back its input."""
SHAPED: Final = frozenset({"view", "reshape", "_unsafe_view"})
"""What gives its input in another shape, the second argument."""
SIZES: Final[Mapping[str, str]] = {"sym_size": "size", "sym_numel": "numel"}
NUMBERS: Final[Mapping[str, str]] = {
    **{f"_operator.{name}": f"operator.{name}" for name in ("add", "sub", "mul", "mod", "neg", "floordiv", "truediv")},
    "_operator.pow": "operator.pow",
    "math.ceil": "math.ceil",
    "math.floor": "math.floor",
    "math.sqrt": "math.sqrt",
    "torch._sym_sqrt": "math.sqrt",
    "torch.sym_int": "int",
    "math.trunc": "int",
    "torch.sym_float": "float",
}
"""Arithmetic on sizes, by what the safe form has for it; `int` and `float` are done as traces do."""
COMPARISONS: Final = frozenset(f"_operator.{name}" for name in ("eq", "ne", "ge", "gt", "le", "lt", "and_", "or_"))
"""Of sizes, for assertions alone."""

_FLASH: Final = "_scaled_dot_product_flash_attention_for_cpu"
_NO_FLAGS: Final = [False, False, False, False]


def rewritten(name: str, args: Arguments, kwargs: dict[str, Value]) -> tuple[str, Arguments, bool]:
    """Return a call in the words of traces, and whether its first result alone is meant."""
    if name == _FLASH:
        args = [*_filled(args, *[None] * 3, 0.0, False), kwargs.pop("attn_mask", None)]
    if name in _CORE:
        return *_CORE[name](args), True
    if name in _PLAIN:
        return *_PLAIN[name](args), False
    return name, args, False


def _renamed(name: str) -> Callable[[Arguments], Call]:
    return lambda args: (name, args)


def _filled(args: Arguments, *defaults: Any) -> Arguments:
    """Return arguments with the last of these defaults for those that are not given."""
    return [*args, *defaults[len(args) - len(defaults) :]] if len(args) < len(defaults) else args


def _transposed(axes: int) -> Callable[[Arguments], Call]:
    def rewrite(args: Arguments) -> Call:
        ones, zeros = [1] * axes, [0] * axes
        given = _filled(args, None, None, None, ones, zeros, zeros, 1, ones)
        images, weight, bias, stride, padding, output_padding, groups, dilation = given[:8]
        return "_convolution", [
            *(images, weight, bias, stride, padding, dilation),
            *(True, output_padding, groups, *_NO_FLAGS),
        ]

    return rewrite


def _batch_norm(training: bool) -> Callable[[Arguments], Call]:
    return lambda args: ("batch_norm", [*args[:5], training, *args[5:7], False])


def _group_norm(args: Arguments) -> Call:
    images, weight, bias, *_, groups, eps = _filled(args, *[None] * 8)
    return "group_norm", [images, groups, weight, bias, eps]


def _flash_attention(args: Arguments) -> Call:
    query, key, value, dropout, causal, mask = args[:6]
    return "scaled_dot_product_attention", [query, key, value, mask, dropout, causal]


def _permuted(args: Arguments) -> Call:
    # how a linear layer turns its weight once it is decomposed
    turned = len(args) == 2 and isinstance(args[0], Own) and args[1] == [1, 0]
    return ("t", args[:1]) if turned else ("permute", args)


_PLAIN: Final[Mapping[str, Callable[[Arguments], Call]]] = {
    "convolution": lambda args: ("_convolution", [*args, *_NO_FLAGS]),
    **{f"conv_transpose{axes}d": _transposed(axes) for axes in (1, 2, 3)},
    "permute": _permuted,
    "_softmax": lambda args: ("softmax", args[:2]),
    "_log_softmax": lambda args: ("log_softmax", args[:2]),
    "_adaptive_avg_pool2d": _renamed("adaptive_avg_pool2d"),
    "_adaptive_avg_pool3d": _renamed("adaptive_avg_pool3d"),
    # A view of what the original had in one piece need not be one here; where it is, both are the same.
    **dict.fromkeys(("view", "_unsafe_view"), _renamed("reshape")),
    "_to_copy": _renamed("to"),
}
_CORE: Final[Mapping[str, Callable[[Arguments], Call]]] = {
    "_native_batch_norm_legit_no_training": _batch_norm(False),
    "_batch_norm_no_update": _batch_norm(False),
    "_batch_norm_with_update": _batch_norm(True),
    "_batch_norm_with_update_functional": _batch_norm(True),
    **dict.fromkeys(
        ("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm"),
        lambda args: ("batch_norm", [*args, False]),
    ),
    "native_layer_norm": _renamed("layer_norm"),
    "native_group_norm": _group_norm,
    "native_dropout": _renamed("dropout"),
    "max_pool1d_with_indices": _renamed("max_pool1d"),
    "max_pool2d_with_indices": _renamed("max_pool2d"),
    "max_pool3d_with_indices": _renamed("max_pool3d"),
    _FLASH: _flash_attention,
}
"""What gives, besides its result, things for the backward pass or the indices of a maximum."""
