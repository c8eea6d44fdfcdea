"""ONNX operators that move values about: reshaping, repeating and turning them, and their sizes.

A file that was exported for one size of batch is made to take any: see `reshape`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.tensors import Array
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, Static, Value
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.formats.onnx_graph.weights import unsupported
from layerscope.models.safe_form.safetensors_file import shown

Handler = Callable[[Translation, OnnxStep], Value | tuple[Value, ...]]
FAR: Final = 2**31 - 1
FIXED_BATCH: Final = "The model was exported for batches of one size; here it takes any."


def wholes(flow: Translation, step: OnnxStep, place: int, attribute: str) -> list[int] | None:
    """Return whole numbers that are an input in newer opsets and an attribute in older ones."""
    if flow.given(step, place):
        return [int(number) for number in flow.constant(step, place).reshape(-1)]
    return step.wholes(attribute, []) if attribute in step.attributes else None


def _reshaped(flow: Translation, step: OnnxStep, x: Dynamic, shapes: tuple[tuple[int, ...], ...]) -> Dynamic:
    if any(math.prod(shape) != math.prod(given) for shape, given in zip(shapes, x.shapes, strict=True)):
        raise refused("bad-shape", f"{step.operator} {shown(step.name)} gives a shape of another size.")
    return flow.function("torch.reshape", x, tuple(flow.sizes(step, shapes)))


def reshape(flow: Translation, step: OnnxStep) -> Dynamic:
    """Reshape; where the file has one size of batch in its shape, that size is left open."""
    x, target = flow.dynamic(step), flow.static(step, 1)
    if step.whole("allowzero", 0) and any(0 in array for array in target.arrays):
        raise unsupported(step, "a size of 0")
    if flow.fixed_batch is not None and target.constant:
        shape = [int(size) for size in target.arrays[0]]
        if opened := _opened(x.shapes, shape, flow.fixed_batch):
            if not any(size in (-1, 0) for size in shape):
                flow.notes[FIXED_BATCH] = None
            return flow.function("torch.reshape", x, tuple(opened))
    shapes = tuple(
        _exact(given, [int(size) for size in array]) for given, array in zip(x.shapes, target.arrays, strict=True)
    )
    return _reshaped(flow, step, x, shapes)


def _exact(given: tuple[int, ...], wanted: list[int]) -> tuple[int, ...]:
    """Return the shape asked for, where 0 is the size given at that place and -1 whatever is left."""
    sizes = [given[place] if size == 0 and place < len(given) else size for place, size in enumerate(wanted)]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = math.prod(given) // max(1, -math.prod(sizes))
    return tuple(sizes)


def _opened(shapes: tuple[tuple[int, ...], ...], wanted: list[int], batch: int) -> list[int] | None:
    """Return the shape asked for with -1 where the images are kept apart, or None if there is no such place.

    In the order of the values, that place overlaps with the images' place in the given shape. Among several, the first
    that is just the batch is taken, else the last one, but rather not the last dimension, which holds features.
    """
    first, second = shapes[:2]
    varying = [place for place, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
    given = tuple(one + (two - one) * (batch - 2) for one, two in zip(first, second, strict=True))
    sizes = list(_exact(given, wanted))
    if len(varying) != 1 or min(sizes, default=0) < 1 or math.prod(sizes) != math.prod(given):
        return None
    before = math.prod(given[: varying[0]])
    until = before * given[varying[0]] // batch
    places = [
        place
        for place, size in enumerate(sizes)
        if size % batch == until % math.prod(sizes[:place]) == math.prod(sizes[: place + 1]) % (before * batch) == 0
    ]
    if not places:
        return None
    alone = [place for place in places if sizes[place] == batch]
    found = alone[0] if alone else max(places, key=lambda place: (place < len(sizes) - 1, place))
    return [*sizes[:found], -1, *sizes[found + 1 :]]


def flatten(flow: Translation, step: OnnxStep) -> Dynamic:
    """Flatten to two dimensions."""
    x, axis = flow.dynamic(step), step.whole("axis", 1)
    axis += x.rank if axis < 0 else 0
    if axis == 1 and not flow.functional(step):
        return flow.layer(step, "Flatten", {"start_dim": 1, "end_dim": -1}, x)
    if axis == 1:
        return flow.function("torch.flatten", x, 1)
    return _reshaped(flow, step, x, tuple((math.prod(shape[:axis]), math.prod(shape[axis:])) for shape in x.shapes))


def transpose(flow: Translation, step: OnnxStep) -> Dynamic:
    """Transpose: permute."""
    x = flow.dynamic(step)
    return flow.function("torch.permute", x, tuple(step.wholes("perm", list(range(x.rank))[::-1])))


def squeeze(flow: Translation, step: OnnxStep) -> Dynamic:
    """Squeeze; without axes, the dimensions that are 1 for every batch."""
    x, axes = flow.dynamic(step), wholes(flow, step, 1, "axes")
    if axes is None:
        axes = [place for place, sizes in enumerate(zip(*x.shapes, strict=True)) if set(sizes) == {1}]
    for axis in sorted((axis % max(1, x.rank) for axis in axes), reverse=True):
        if any(shape[axis] != 1 for shape in x.shapes):
            raise refused("bad-shape", f"Squeeze {shown(step.name)} drops a dimension that is not 1.")
        x = flow.function("torch.squeeze", x, axis)
    return x


def unsqueeze(flow: Translation, step: OnnxStep) -> Dynamic:
    """Unsqueeze at one or more places of the result."""
    x, axes = flow.dynamic(step), wholes(flow, step, 1, "axes") or []
    rank = x.rank + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = flow.function("torch.unsqueeze", x, axis)
    return x


def expand(flow: Translation, step: OnnxStep) -> Dynamic:
    """Expand to a shape, which may depend on the batch."""
    x, target = flow.dynamic(step), flow.static(step, 1)
    shapes = tuple(
        tuple(np.broadcast_shapes(shape, tuple(int(size) for size in array)))
        for shape, array in zip(x.shapes, target.arrays, strict=True)
    )
    return flow.call("method", "expand", x, *flow.sizes(step, shapes, infer=False))


def tile(flow: Translation, step: OnnxStep) -> Dynamic:
    """Tile by constant numbers of times."""
    return flow.function("torch.tile", flow.dynamic(step), tuple(wholes(flow, step, 1, "repeats") or []))


def shape_of(flow: Translation, step: OnnxStep) -> Static:
    """Shape, or a part of it, as numbers."""
    value = flow.value(step, 0)
    shapes = value.shapes if isinstance(value, Dynamic) else tuple(array.shape for array in value.arrays)
    wanted = slice(step.whole("start", 0), step.whole("end", FAR))
    return _numbers([np.array(shape[wanted], "<i8") for shape in shapes])


def size_of(flow: Translation, step: OnnxStep) -> Static:
    """Size: the number of elements."""
    value = flow.value(step, 0)
    shapes = value.shapes if isinstance(value, Dynamic) else tuple(array.shape for array in value.arrays)
    return _numbers([np.array(math.prod(shape), "<i8") for shape in shapes])


def _numbers(arrays: list[Array]) -> Static:
    return Static(tuple(arrays[0] if np.array_equal(array, arrays[0]) else array for array in arrays))


SHAPES: Final[Mapping[str, Handler]] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Shape": shape_of,
    "Size": size_of,
}
