"""ONNX operators that slide a window over the images: convolutions and pooling, each a layer of torch."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.traced_values import Dynamic
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.formats.onnx_graph.weights import optional, unsupported, weighted
from layerscope.models.safe_form.safetensors_file import shown

_LOWEST: Final = float(np.finfo(np.float32).min)


def _window(step: OnnxStep, x: Dynamic, kernel: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Return stride, dilation and padding (all begins, then all ends) of a window over the images.

    Raises:
        Refused: `bad-argument`, `unknown-operator`.
    """
    axes = len(kernel)
    strides, dilations = step.wholes("strides", [1] * axes), step.wholes("dilations", [1] * axes)
    pads = step.wholes("pads", [0] * 2 * axes)
    if x.rank != axes + 2 or not len(strides) == len(dilations) == axes or len(pads) != 2 * axes:
        raise refused("bad-argument", f"{step.operator} {shown(step.name)} has a window that does not fit its input.")
    match step.text("auto_pad", "NOTSET"):
        case "VALID":
            pads = [0] * 2 * axes
        case "SAME_UPPER" | "SAME_LOWER" as same:
            if len({shape[2:] for shape in x.shapes}) > 1:
                raise unsupported(step, f"auto_pad={same} on images of open size")
            pads = _same(same, x.shapes[0][2:], kernel, strides, dilations)
    if min(pads) < 0 or min(strides) < 1:
        raise unsupported(step, "a negative padding")
    return strides, dilations, pads


def _same(which: str, sizes: Any, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / max(1, stride)) - 1) * stride + dilation * (width - 1) + 1 - size)
        less, more = total // 2, total - total // 2
        begins.append(less if which == "SAME_UPPER" else more)
        ends.append(more if which == "SAME_UPPER" else less)
    return begins + ends


def _padded(
    flow: Translation, x: Dynamic, pads: list[int], value: float, limit: list[int]
) -> tuple[Dynamic, list[int]]:
    """Return the input and the padding left to a layer, which pads both sides alike and by no more than `limit`."""
    axes = len(pads) // 2
    begins, ends = pads[:axes], pads[axes:]
    if begins == ends and all(pad <= most for pad, most in zip(begins, limit, strict=True)):
        return x, begins
    around = [pad for axis in reversed(range(axes)) for pad in (begins[axis], ends[axis])]
    return flow.function("functional.pad", x, around, "constant", value), [0] * axes


def convolution(flow: Translation, step: OnnxStep) -> Dynamic:
    """Conv: Conv1d, Conv2d or Conv3d."""
    x, weight, bias = flow.dynamic(step), flow.static(step, 1), optional(flow, step, 2)
    kernel, groups = list(weight.arrays[0].shape[2:]), step.whole("group", 1)
    if step.wholes("kernel_shape", kernel) != kernel or not 1 <= len(kernel) <= 3:
        raise refused("bad-argument", f"Conv {shown(step.name)} has a window that does not fit its weights.")
    strides, dilations, pads = _window(step, x, kernel)
    x, padding = _padded(flow, x, pads, 0.0, [1_024] * len(kernel))
    arguments = {
        "in_channels": weight.arrays[0].shape[1] * groups,
        "out_channels": weight.arrays[0].shape[0],
        "kernel_size": kernel,
        "stride": strides,
        "padding": padding,
        "dilation": dilations,
        "groups": groups,
        "bias": bias is not None,
        "padding_mode": "zeros",
    }
    return weighted(flow, step, f"Conv{len(kernel)}d", arguments, x, weight, bias)


def transposed_convolution(flow: Translation, step: OnnxStep) -> Dynamic:
    """ConvTranspose: ConvTranspose1d to 3d."""
    x, weight, bias = flow.dynamic(step), flow.static(step, 1), optional(flow, step, 2)
    kernel, groups = list(weight.arrays[0].shape[2:]), step.whole("group", 1)
    axes = len(kernel)
    if step.wholes("kernel_shape", kernel) != kernel or not 1 <= axes <= 3:
        raise refused("bad-argument", f"ConvTranspose {shown(step.name)} has a window that does not fit its weights.")
    if "output_shape" in step.attributes or step.text("auto_pad", "NOTSET").startswith("SAME"):
        raise unsupported(step, "a padding chosen by its output")
    strides, dilations, pads = _window(step, x, kernel)
    if pads[:axes] != pads[axes:]:
        raise unsupported(step, "a padding that differs between the sides")
    arguments = {
        "in_channels": weight.arrays[0].shape[0],
        "out_channels": weight.arrays[0].shape[1] * groups,
        "kernel_size": kernel,
        "stride": strides,
        "padding": pads[:axes],
        "output_padding": step.wholes("output_padding", [0] * axes),
        "dilation": dilations,
        "groups": groups,
        "bias": bias is not None,
        "padding_mode": "zeros",
    }
    return weighted(flow, step, f"ConvTranspose{axes}d", arguments, x, weight, bias)


def max_pool(flow: Translation, step: OnnxStep) -> Dynamic:
    """MaxPool: MaxPool1d to 3d."""
    x, kernel = flow.dynamic(step), step.wholes("kernel_shape", [])
    if len(step.outputs) > 1 and step.outputs[1]:
        raise unsupported(step, "a second output")
    strides, dilations, pads = _window(step, x, kernel)
    x, padding = _padded(flow, x, pads, _LOWEST, [size // 2 for size in kernel])
    ceil_mode = step.whole("ceil_mode", 0) == 1
    arguments: dict[str, Any] = {"kernel_size": kernel, "stride": strides, "padding": padding, "dilation": dilations}
    arguments |= {"return_indices": False, "ceil_mode": ceil_mode}
    return flow.layer(step, f"MaxPool{len(kernel)}d", arguments, x)


def average_pool(flow: Translation, step: OnnxStep) -> Dynamic:
    """AveragePool: AvgPool1d or AvgPool2d."""
    x, kernel = flow.dynamic(step), step.wholes("kernel_shape", [])
    strides, dilations, pads = _window(step, x, kernel)
    counts = step.whole("count_include_pad", 0) == 1 or not any(pads)
    ceil_mode = step.whole("ceil_mode", 0) == 1
    axes, limit = len(kernel), [size // 2 for size in kernel]
    uneven = pads[:axes] != pads[axes:] or any(pad > most for pad, most in zip(pads, limit, strict=False))
    if dilations != [1] * axes or (not counts and uneven):
        raise unsupported(step, "a dilation, or a padding that it does not count")
    if ceil_mode and any(pads):
        raise unsupported(step, "both ceil_mode and a padding")
    x, padding = _padded(flow, x, pads, 0.0, limit)
    if axes == 3:  # no layer of the safe form
        return flow.function("functional.avg_pool3d", x, kernel, strides, padding, ceil_mode, counts)
    arguments: dict[str, Any] = {"kernel_size": kernel, "stride": strides, "padding": padding, "ceil_mode": ceil_mode}
    arguments |= {"count_include_pad": counts} | ({"divisor_override": None} if axes == 2 else {})
    return flow.layer(step, f"AvgPool{axes}d", arguments, x)


def global_average_pool(flow: Translation, step: OnnxStep) -> Dynamic:
    """GlobalAveragePool: AdaptiveAvgPool1d to 3d."""
    x = flow.dynamic(step)
    return flow.layer(step, f"AdaptiveAvgPool{x.rank - 2}d", {"output_size": [1] * (x.rank - 2)}, x)


def global_max_pool(flow: Translation, step: OnnxStep) -> Dynamic:
    """GlobalMaxPool: AdaptiveMaxPool1d or 2d."""
    x = flow.dynamic(step)
    arguments = {"output_size": [1] * (x.rank - 2), "return_indices": False}
    return flow.layer(step, f"AdaptiveMaxPool{x.rank - 2}d", arguments, x)
