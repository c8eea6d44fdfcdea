"""ONNX operators with weights, of normalisation and linear layers: each becomes a layer of torch with the same arithmetic."""

from __future__ import annotations

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.tensors import Array
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, Static
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.formats.onnx_graph.weights import constant_of, optional, owner_of, unsupported, weighted
from layerscope.models.safe_form.safetensors_file import shown

# Normalisation -------------------------------------------------------------------------------------------------------


def batch_normalization(flow: Translation, step: OnnxStep) -> Dynamic:
    """BatchNormalization: BatchNorm1d to 3d, with the statistics in the file."""
    x = flow.dynamic(step)
    names = ("weight", "bias", "running_mean", "running_var")
    values = {name: flow.static(step, place) for place, name in enumerate(names, 1)}
    if step.whole("training_mode", 0) == 1:
        flow.notes["The model was exported in training mode; its stored statistics are used."] = None
    tensors = {name: constant_of(value, step, flow) for name, value in values.items()}
    arguments = {
        "num_features": tensors["weight"].size,
        "eps": step.real("epsilon", 1e-5),
        "momentum": 0.1,
        "affine": True,
        "track_running_stats": True,
    }
    tensors["num_batches_tracked"] = np.array(0)
    owner = owner_of(values["weight"], values["bias"])
    return flow.layer(step, f"BatchNorm{max(1, x.rank - 2)}d", arguments, x, tensors, weight=owner)


def instance_normalization(flow: Translation, step: OnnxStep) -> Dynamic:
    """InstanceNormalization: InstanceNorm1d to 3d."""
    x, scale, bias = flow.dynamic(step), flow.static(step, 1), flow.static(step, 2)
    arguments = {
        "num_features": scale.arrays[0].size,
        "eps": step.real("epsilon", 1e-5),
        "momentum": 0.1,
        "affine": True,
        "track_running_stats": False,
    }
    return weighted(flow, step, f"InstanceNorm{x.rank - 2}d", arguments, x, scale, bias)


def group_normalization(flow: Translation, step: OnnxStep) -> Dynamic:
    """GroupNormalization: GroupNorm; before opset 21 it has one weight a group."""
    x, scale, bias = flow.dynamic(step), flow.static(step, 1), flow.static(step, 2)
    groups, channels = step.whole("num_groups", 0), x.shapes[0][1]
    weights, shifts = (constant_of(value, step, flow).reshape(-1) for value in (scale, bias))
    if 0 < groups == weights.size != channels:
        weights, shifts = (np.repeat(array, channels // groups) for array in (weights, shifts))
    arguments = {"num_groups": groups, "num_channels": channels, "eps": step.real("epsilon", 1e-5), "affine": True}
    tensors = {"weight": weights, "bias": shifts}
    return flow.layer(step, "GroupNorm", arguments, x, tensors, weight=owner_of(scale, bias))


def layer_normalization(flow: Translation, step: OnnxStep) -> Dynamic:
    """LayerNormalization: LayerNorm."""
    x, scale, bias = flow.dynamic(step), flow.static(step, 1), optional(flow, step, 2)
    if any(step.outputs[1:]):
        raise unsupported(step, "a second output")
    axis = step.whole("axis", -1)
    shape = list(x.shapes[0][axis:]) if axis < 0 else list(x.shapes[0][max(1, axis) :])
    arguments = {
        "normalized_shape": shape,
        "eps": step.real("epsilon", 1e-5),
        "elementwise_affine": True,
        "bias": bias is not None,
    }
    return weighted(flow, step, "LayerNorm", arguments, x, scale, bias)


def local_response_normalization(flow: Translation, step: OnnxStep) -> Dynamic:
    """LRN: LocalResponseNorm."""
    arguments = {
        "size": step.whole("size", 0),
        "alpha": step.real("alpha", 1e-4),
        "beta": step.real("beta", 0.75),
        "k": step.real("bias", 1.0),
    }
    return flow.layer(step, "LocalResponseNorm", arguments, flow.dynamic(step))


# Linear --------------------------------------------------------------------------------------------------------------


def gemm(flow: Translation, step: OnnxStep) -> Dynamic:
    """Gemm: Linear, with its factors multiplied into the weights."""
    x, weight, bias = flow.dynamic(step), flow.static(step, 1), optional(flow, step, 2)
    if step.whole("transA", 0) or x.rank != 2:
        raise unsupported(step, "a transposed input")
    matrix = constant_of(weight, step, flow)
    matrix = _scaled(matrix if step.whole("transB", 0) else matrix.T, step.real("alpha", 1.0))
    shift = _scaled(constant_of(bias, step, flow), step.real("beta", 1.0)) if bias is not None else None
    if shift is not None:
        if shift.size not in (1, matrix.shape[0]):
            raise unsupported(step, "a bias that is no row")
        shift = np.broadcast_to(shift.reshape(-1), matrix.shape[:1])
    return linear(flow, step, x, matrix, shift, owner_of(weight, bias))


def _scaled(array: Array, factor: float) -> Array:
    return array if factor == 1 else (array * np.float32(factor)).astype(array.dtype)


def linear(flow: Translation, step: OnnxStep, x: Dynamic, weight: Array, bias: Array | None, owner: str) -> Dynamic:
    """Write a Linear of a weight (out, in) and a bias (out,)."""
    if weight.ndim != 2:
        raise refused("shape-mismatch", f"{step.operator} {shown(step.name)} has weights that are no matrix.")
    arguments = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    tensors = {"weight": weight} | ({} if bias is None else {"bias": bias})
    return flow.layer(step, "Linear", arguments, x, tensors, weight=owner)


def matrix_product(flow: Translation, step: OnnxStep) -> Dynamic:
    """MatMul: Linear where the right side is a matrix of weights (a third input is its bias), else a product."""
    left, right = flow.dynamic(step), flow.value(step, 1)
    if isinstance(right, Static) and right.arrays[0].ndim == 2:
        bias = optional(flow, step, 2)
        shift = None if bias is None else constant_of(bias, step, flow)
        return linear(flow, step, left, constant_of(right, step, flow).T, shift, owner_of(bias, right))
    return flow.function("torch.matmul", left, flow.dynamic(step, 1))
