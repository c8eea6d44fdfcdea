"""ONNX operators without weights that work on single values: activations, and arithmetic between two or more values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, Static, Value
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.formats.onnx_graph.weights import unsupported

Handler = Callable[[Translation, OnnxStep], Value]

_SIXTH: Final = 1 / 6
_SELU: Final = (1.6732632, 1.0507010)
_INPLACE: Final = frozenset({"ELU", "CELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "Mish", "ReLU"}) | {
    "ReLU6",
    "SELU",
    "SiLU",
}
_FUNCTIONS: Final[Mapping[str, str]] = {
    "ReLU": "functional.relu",
    "ReLU6": "functional.relu6",
    "LeakyReLU": "functional.leaky_relu",
    "ELU": "functional.elu",
    "CELU": "functional.celu",
    "SELU": "functional.selu",
    "GELU": "functional.gelu",
    "SiLU": "functional.silu",
    "Mish": "functional.mish",
    "Sigmoid": "torch.sigmoid",
    "Tanh": "torch.tanh",
    "Softplus": "functional.softplus",
    "Softsign": "functional.softsign",
    "Hardswish": "functional.hardswish",
    "Hardsigmoid": "functional.hardsigmoid",
    "Hardtanh": "functional.hardtanh",
    "Softmax": "functional.softmax",
    "LogSoftmax": "functional.log_softmax",
}


def activation(flow: Translation, step: OnnxStep, kind: str, x: Dynamic, **arguments: Any) -> Dynamic:
    """Write an activation as the layer that it was, or as a function where it was one."""
    if flow.functional(step):
        return flow.function(_FUNCTIONS[kind], x, **arguments)
    return flow.layer(step, kind, arguments | ({"inplace": False} if kind in _INPLACE else {}), x)


def _plain(kind: str, **arguments: Any) -> Handler:
    return lambda flow, step: activation(flow, step, kind, flow.dynamic(step), **arguments)


def leaky_relu(flow: Translation, step: OnnxStep) -> Dynamic:
    """LeakyRelu, slope 0.01 unless it says otherwise."""
    return activation(flow, step, "LeakyReLU", flow.dynamic(step), negative_slope=step.real("alpha", 0.01))


def elu(flow: Translation, step: OnnxStep) -> Dynamic:
    """Elu or Celu."""
    kind = {"Elu": "ELU", "Celu": "CELU"}[step.operator]
    return activation(flow, step, kind, flow.dynamic(step), alpha=step.real("alpha", 1.0))


def selu(flow: Translation, step: OnnxStep) -> Dynamic:
    """Selu, with the factors of its paper."""
    factors = (step.real("alpha", _SELU[0]), step.real("gamma", _SELU[1]))
    if not np.allclose(factors, _SELU, rtol=1e-5):
        raise unsupported(step, f"the factors {factors}")
    return activation(flow, step, "SELU", flow.dynamic(step))


def gelu(flow: Translation, step: OnnxStep) -> Dynamic:
    """Gelu, exact or by tanh."""
    return activation(flow, step, "GELU", flow.dynamic(step), approximate=step.text("approximate", "none"))


def hard_sigmoid(flow: Translation, step: OnnxStep) -> Dynamic:
    """HardSigmoid: torch's own where it has its slope, else clamp(alpha x + beta, 0, 1)."""
    x, alpha, beta = flow.dynamic(step), step.real("alpha", 0.2), step.real("beta", 0.5)
    if abs(alpha - _SIXTH) < 1e-6 and beta == 0.5:
        return activation(flow, step, "Hardsigmoid", x)
    shifted = flow.function("operator.add", flow.function("operator.mul", x, alpha), beta)
    return flow.function("torch.clamp", shifted, 0.0, 1.0)


def prelu(flow: Translation, step: OnnxStep) -> Dynamic:
    """PRelu, one slope for all channels or one each."""
    x, slope = flow.dynamic(step), flow.static(step, 1)
    array = flow.constant(step, 1)
    per_channel = (array.ndim == x.rank - 1 and array.shape[0] == array.size) or array.shape == (1, array.size, 1, 1)
    if array.size != 1 and not per_channel:
        raise unsupported(step, f"slopes of the shape {array.shape}")
    owner = slope.name.removesuffix(".weight") if slope.name.endswith(".weight") else ""
    tensors = {"weight": array.reshape(-1)}
    return flow.layer(step, "PReLU", {"num_parameters": array.size}, x, tensors, weight=owner)


def clip(flow: Translation, step: OnnxStep) -> Dynamic:
    """Clip: ReLU6 where it is that, Hardtanh between two other numbers, else a clamp."""
    low, high = (_bound(flow, step, place, name) for place, name in ((1, "min"), (2, "max")))
    x = flow.dynamic(step)
    if (low, high) == (0.0, 6.0):
        return activation(flow, step, "ReLU6", x)
    if low is not None and high is not None:
        return activation(flow, step, "Hardtanh", x, min_val=low, max_val=high)
    return x if low is high is None else flow.function("torch.clamp", x, min=low, max=high)


def _bound(flow: Translation, step: OnnxStep, place: int, name: str) -> float | None:
    if flow.given(step, place):
        array = flow.constant(step, place)
        if array.size != 1:
            raise unsupported(step, f"a {name} that is no number")
        bound = float(array.reshape(-1)[0])
    elif name in step.attributes:
        bound = step.real(name, 0.0)
    else:
        return None
    return bound if abs(bound) < 3e38 else None


def softmax(flow: Translation, step: OnnxStep) -> Dynamic:
    """Softmax or LogSoftmax; before opset 13 it was over all dimensions from the axis on."""
    x = flow.dynamic(step)
    axis = step.whole("axis", 1 if flow.opset < 13 else -1)
    axis += x.rank if axis < 0 else 0
    if flow.opset < 13 and any(size != 1 for shape in x.shapes for size in shape[axis + 1 :]):
        raise unsupported(step, f"the axis {axis} of {x.rank}")
    return activation(flow, step, {"Softmax": "Softmax", "LogSoftmax": "LogSoftmax"}[step.operator], x, dim=axis)


# Arithmetic ----------------------------------------------------------------------------------------------------------


def _binary(target: str) -> Handler:
    def handle(flow: Translation, step: OnnxStep) -> Dynamic:
        left, right = (flow.operand(flow.value(step, place)) for place in (0, 1))
        return flow.function(target, left, right)

    return handle


def _unary(target: str) -> Handler:
    return lambda flow, step: flow.function(target, flow.dynamic(step))


def _chained(target: str) -> Handler:
    """Write an operator of any number of inputs, two at a time."""

    def handle(flow: Translation, step: OnnxStep) -> Dynamic:
        result = flow.dynamic(step)
        for place in range(1, len(step.inputs)):
            result = flow.function(target, result, flow.dynamic(step, place))
        return result

    return handle


def mean(flow: Translation, step: OnnxStep) -> Dynamic:
    """Mean of its inputs."""
    total = _chained("operator.add")(flow, step)
    assert isinstance(total, Dynamic)
    return flow.function("operator.truediv", total, len(step.inputs))


def reciprocal(flow: Translation, step: OnnxStep) -> Dynamic:
    """Reciprocal: 1 / x."""
    return flow.function("operator.truediv", 1.0, flow.dynamic(step))


def where(flow: Translation, step: OnnxStep) -> Dynamic:
    """Where: the second input where the first holds, else the third."""
    condition = flow.dynamic(step)
    chosen = [flow.operand(flow.value(step, place)) for place in (1, 2)]
    if not any(isinstance(value, Dynamic) for value in chosen):
        chosen[0] = flow.dynamic(step, 1)
    return flow.function("torch.where", condition, *chosen)


def cast(flow: Translation, step: OnnxStep) -> Value:
    """Cast between kinds of floating point: all of them are float32 here."""
    value = flow.value(step, 0)
    floats = not isinstance(value, Static) and value.probes[0].is_floating_point()
    if step.operator == "Cast" and step.whole("to", 0) not in (1, 10, 11, 16):
        raise unsupported(step, "a type that is no floating point")
    return value if floats else flow.call("method", "float", flow.dynamic(step))


def alias(flow: Translation, step: OnnxStep) -> Value:
    """Identity, or Dropout in eval mode; a tensor that is only named again has that name."""
    value = flow.value(step, 0)
    return Static(value.arrays, step.outputs[0]) if isinstance(value, Static) else value


ACTIVATIONS: Final[Mapping[str, Handler]] = {
    "Relu": _plain("ReLU"),
    "Sigmoid": _plain("Sigmoid"),
    "Tanh": _plain("Tanh"),
    "Softplus": _plain("Softplus", beta=1.0, threshold=20.0),
    "Softsign": _plain("Softsign"),
    "HardSwish": _plain("Hardswish"),
    "Mish": _plain("Mish"),
    "SiLU": _plain("SiLU"),
    "LeakyRelu": leaky_relu,
    "Elu": elu,
    "Celu": elu,
    "Selu": selu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "PRelu": prelu,
    "Clip": clip,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Add": _binary("operator.add"),
    "Sub": _binary("operator.sub"),
    "Mul": _binary("operator.mul"),
    "Div": _binary("operator.truediv"),
    "Pow": _binary("operator.pow"),
    "Equal": _binary("operator.eq"),
    "Greater": _binary("operator.gt"),
    "GreaterOrEqual": _binary("operator.ge"),
    "Less": _binary("operator.lt"),
    "LessOrEqual": _binary("operator.le"),
    "Neg": _unary("operator.neg"),
    "Abs": _unary("torch.abs"),
    "Sqrt": _unary("torch.sqrt"),
    "Exp": _unary("torch.exp"),
    "Log": _unary("torch.log"),
    "Sin": _unary("torch.sin"),
    "Cos": _unary("torch.cos"),
    "Sum": _chained("operator.add"),
    "Max": _chained("torch.maximum"),
    "Min": _chained("torch.minimum"),
    "Mean": mean,
    "Reciprocal": reciprocal,
    "Where": where,
    "Cast": cast,
    "CastLike": cast,
    "Identity": alias,
    "Dropout": alias,
}
