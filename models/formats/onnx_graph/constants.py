"""Arithmetic on what does not depend on the images: sizes, indices and weights, computed once while the file is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.tensors import Array
from layerscope.models.formats.onnx_graph.traced_values import Static
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

MAX_COMPUTED: Final = 2**25
"""Elements computed for one model, all results together."""
MAX_GROWN: Final = 2**20
"""Elements of one result that is larger than what it was made of."""

_ERRORS: Final = (ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError)
_TYPES: Final[Mapping[int, str]] = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f4", 11: "f4"}
"""ONNX's numbers of types; all floating point is float32 here."""

Folding = Callable[[OnnxStep, Sequence[Any]], Any]


def _axes(step: OnnxStep, arrays: Sequence[Any], place: int = 1) -> tuple[int, ...] | None:
    axes = arrays[place].tolist() if len(arrays) > place and arrays[place] is not None else step.attributes.get("axes")
    return None if axes is None else tuple(axes)


def _divide(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    left, right = arrays
    if left.dtype.kind in "iu":
        if not right.all():
            raise ZeroDivisionError("division by zero")
        return (np.abs(left) // np.abs(right) * np.sign(left) * np.sign(right)).astype(left.dtype)
    return left / right


def _gather(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    taken = arrays[1].size * (arrays[0].size // max(1, arrays[0].shape[step.attributes.get("axis", 0)]))
    if taken > max(MAX_GROWN, arrays[0].size):
        raise ValueError("a constant would be too large")
    return np.take(arrays[0], arrays[1].astype("i8"), axis=step.attributes.get("axis", 0))


def _slice(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    if "starts" in step.attributes:
        starts, ends = step.attributes["starts"], step.attributes["ends"]
        axes, steps = step.attributes.get("axes"), None
    else:
        starts, ends, axes, steps = (None if part is None else part.tolist() for part in (*arrays[1:], None, None)[:4])
    places: list[Any] = [slice(None)] * arrays[0].ndim
    for number, axis in enumerate(axes if axes is not None else range(len(starts))):
        stride = steps[number] if steps else 1
        places[axis] = slice(starts[number], ends[number] if ends[number] > -(2**62) else None, stride)
    return arrays[0][tuple(places)]


def _reshape(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    sizes = [arrays[0].shape[place] if size == 0 else int(size) for place, size in enumerate(arrays[1])]
    return arrays[0].reshape(sizes)


def _unsqueeze(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    return np.expand_dims(arrays[0], _axes(step, arrays) or ())


def _squeeze(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    return np.squeeze(arrays[0], _axes(step, arrays))


def _cast(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    dtype = _TYPES[step.attributes["to"]]
    return arrays[0] if arrays[0].dtype.kind == dtype[0] == "f" else arrays[0].astype(dtype)


def _filled(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    value = step.attributes.get("value", np.zeros(1, "f4"))
    return np.full(_checked_shape(arrays[0].tolist()), value.reshape(-1)[0], value.dtype)


def _range(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    start, limit, delta = (array.item() for array in arrays)
    _checked_shape([max(0, math.ceil((limit - start) / delta))])
    return np.arange(start, limit, delta).astype(arrays[0].dtype)


def _expand(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    shape = np.broadcast_shapes(arrays[0].shape, tuple(_checked_shape(arrays[1].tolist())))
    return np.broadcast_to(arrays[0], _checked_shape(list(shape)))


def _tile(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    _checked_shape([arrays[0].size, *arrays[1].tolist()])
    return np.tile(arrays[0], arrays[1])


def _checked_shape(shape: list[int]) -> list[int]:
    if any(size < 0 for size in shape) or len(shape) > 8 or math.prod(shape) > MAX_GROWN:
        raise ValueError(f"a constant would have the shape {shape}")
    return shape


def _concat(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    return np.concatenate(arrays, axis=step.attributes["axis"])


def _transpose(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    return np.transpose(arrays[0], step.attributes.get("perm"))


def _scatter(step: OnnxStep, arrays: Sequence[Any]) -> Any:
    if step.attributes.get("reduction", "none") != "none":
        raise ValueError("values are added up")
    data = arrays[0].copy()
    data[tuple(np.moveaxis(arrays[1], -1, 0))] = arrays[2]
    return data


def _reduced(reduce: Callable[..., Any]) -> Folding:
    def fold(step: OnnxStep, arrays: Sequence[Any]) -> Any:
        return reduce(arrays[0], axis=_axes(step, arrays), keepdims=bool(step.attributes.get("keepdims", 1)))

    return fold


def _by(ufunc: Callable[..., Any]) -> Folding:
    def fold(step: OnnxStep, arrays: Sequence[Any]) -> Any:
        if math.prod(np.broadcast_shapes(*(array.shape for array in arrays))) > max(
            MAX_GROWN, *(array.size for array in arrays)
        ):
            raise ValueError("a constant would be too large")
        return ufunc(*arrays)

    return fold


FOLDINGS: Final[Mapping[str, Folding]] = {
    **{name: _by(getattr(np, name.lower())) for name in ("Add", "Equal", "Greater", "Less", "Where", "Floor", "Ceil")},
    **{name: _by(getattr(np, name.lower())) for name in ("Abs", "Sqrt", "Exp", "Log", "Cos", "Sin", "Reciprocal")},
    "Sub": _by(np.subtract),
    "Mul": _by(np.multiply),
    "Mod": _by(np.mod),
    "Pow": _by(np.power),
    "Neg": _by(np.negative),
    "Min": _by(np.minimum),
    "Max": _by(np.maximum),
    "Not": _by(np.logical_not),
    "And": _by(np.logical_and),
    "Or": _by(np.logical_or),
    "GreaterOrEqual": _by(np.greater_equal),
    "LessOrEqual": _by(np.less_equal),
    "Div": _divide,
    "Gather": _gather,
    "Slice": _slice,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Transpose": _transpose,
    "ScatterND": _scatter,
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceMean": _reduced(np.mean),
}


def _equal(array: Array, other: Array) -> bool:
    return array.size <= MAX_GROWN and array.dtype == other.dtype and np.array_equal(array, other)


_VIEWS: Final = frozenset({"Cast", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""What mostly looks at the same memory in another way."""


class Folder:
    """Computes the steps whose inputs are all known, within a budget of elements."""

    def __init__(self, flow: Translation) -> None:
        """Compute on the values of `flow`."""
        self._flow = flow
        self._left = MAX_COMPUTED

    def folds(self, step: OnnxStep) -> bool:
        """Return whether this step can be computed now; a weight repeated for each image is better left to the model."""
        inputs = [self._flow.values[name] for name in step.inputs if name]
        if step.operator not in FOLDINGS or not inputs or not all(isinstance(value, Static) for value in inputs):
            return False
        first, last = inputs[0], inputs[-1]
        grows = step.operator == "Expand" and isinstance(last, Static) and not last.constant
        return not (grows and isinstance(first, Static) and first.arrays[0].dtype.kind == "f")

    def fold(self, step: OnnxStep) -> Static:
        """Return the result of a step for each probe.

        Raises:
            Refused: `bad-shape`, `too-large`.
        """
        given = [self._flow.values[name] if name else None for name in step.inputs]
        results: list[Array] = []
        for probe in range(self._flow.probes):
            arrays = [value.arrays[probe] if isinstance(value, Static) else None for value in given]
            if probe and all(isinstance(v, Static) and v.arrays[probe] is v.arrays[0] for v in given if v is not None):
                results.append(results[0])
            else:
                result = self._computed(step, arrays)
                results.append(results[0] if results and _equal(result, results[0]) else result)
        return Static(tuple(results))

    def _computed(self, step: OnnxStep, arrays: list[Any]) -> Array:
        cost = sum(array.size for array in arrays if array is not None)
        if step.operator not in _VIEWS and cost > self._left:
            raise self._too_much()
        try:
            with np.errstate(all="ignore"):
                result: Array = np.asarray(FOLDINGS[step.operator](step, arrays))
        except _ERRORS as error:
            raise refused("bad-shape", f"{step.operator} {shown(step.name)}: {shown(str(error))}.") from error
        if result.dtype == np.float64 and not any(array is not None and array.dtype == np.float64 for array in arrays):
            result = result.astype(np.float32)
        if not any(array is not None and np.may_share_memory(result, array) for array in arrays):
            self._left -= cost + result.size
        if self._left < 0:
            raise self._too_much()
        return result

    def _too_much(self) -> Refused:
        return Refused(
            "too-large",
            f"The model computes more than {MAX_COMPUTED:,} constants while it is read.",
            "Export it with its constants folded: torch.onnx.export(model, (images,), 'model.onnx')",
        )
