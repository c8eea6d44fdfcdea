"""ONNX operators that join, split, cut, pad and resize values, or sum over their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.refusals import refused
from layerscope.models.formats.onnx_graph.shapes import FAR, FIXED_BATCH, Handler, wholes
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, Static, Value
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.formats.onnx_graph.weights import unsupported
from layerscope.models.safe_form.safetensors_file import shown


def concatenate(flow: Translation, step: OnnxStep) -> Dynamic:
    """Concat; in a file for one size of batch, a constant for that size is repeated for any."""
    axis, values = step.whole("axis", 0), [flow.value(step, place) for place in range(len(step.inputs))]
    like = next(
        (value for value in values if isinstance(value, Dynamic) and len({s[:1] for s in value.shapes}) > 1), None
    )
    parts = []
    for value in values:
        part = value if isinstance(value, Dynamic) or like is None else _one_row(flow, value)
        dynamic = flow.tensor(part) if isinstance(part, Static) else part
        parts.append(dynamic if part is value or like is None else _repeated(flow, step, dynamic, like))
    return flow.function("torch.cat", parts, axis)


def _one_row(flow: Translation, value: Static) -> Static:
    """Return the one row of a constant that was written once for each image of the file's batch, else the constant."""
    array = value.arrays[0]
    if not value.constant or array.ndim < 2 or array.shape[0] != flow.fixed_batch or (array != array[:1]).any():
        return value
    flow.notes[FIXED_BATCH] = None
    return Static((array[:1],) * flow.probes, value.name)


def _repeated(flow: Translation, step: OnnxStep, part: Dynamic, like: Dynamic) -> Dynamic:
    shapes = tuple((given[0], *shape[1:]) for given, shape in zip(like.shapes, part.shapes, strict=True))
    return flow.call("method", "expand", part, *flow.sizes(step, shapes, infer=False))


def split(flow: Translation, step: OnnxStep) -> tuple[Value, ...]:
    """Split into as many parts as it has outputs."""
    x, axis, sizes = flow.dynamic(step), step.whole("axis", 0), wholes(flow, step, 1, "split")
    size, count = x.shapes[0][axis], len(step.outputs)
    if sizes is None:
        each = -(-size // max(1, count))
        sizes = [min(each, size - each * part) for part in range(count)]
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 0 or len({shape[axis] for shape in x.shapes}) > 1:
        raise refused("bad-shape", f"Split {shown(step.name)} has parts that do not make up its input.")
    parts = flow.function("torch.split", x, sizes, axis)
    return tuple(flow.function("operator.getitem", parts, place) for place in range(count))


def cut(flow: Translation, step: OnnxStep) -> Dynamic:
    """Slice along one or more dimensions, forwards."""
    x = flow.dynamic(step)
    starts, ends = (wholes(flow, step, place, name) or [] for place, name in ((1, "starts"), (2, "ends")))
    axes, strides = wholes(flow, step, 3, "axes"), wholes(flow, step, 4, "steps") or [1] * len(starts)
    places: list[Any] = [slice(None)] * x.rank
    for start, end, axis, stride in zip(starts, ends, axes or range(len(starts)), strides, strict=False):
        if stride < 1 or not -x.rank <= axis < x.rank:
            raise unsupported(step, "a slice that goes backwards")
        places[axis] = slice(start or None, None if end >= FAR else end, None if stride == 1 else stride)
    return flow.function("operator.getitem", x, tuple(places))


def gather(flow: Translation, step: OnnxStep) -> Dynamic:
    """Gather one or several constant places along one dimension."""
    x, axis, indices = flow.dynamic(step), step.whole("axis", 0), flow.constant(step, 1)
    if indices.ndim == 0:
        return flow.function("torch.select", x, axis, int(indices))
    size = x.shapes[0][axis]
    if indices.ndim != 1 or len({shape[axis] for shape in x.shapes}) > 1 or np.any(np.abs(indices) > size):
        raise unsupported(step, f"indices of the shape {indices.shape}")
    chosen = flow.tensor(Static((np.where(indices < 0, indices + size, indices).astype("<i8"),) * flow.probes))
    return flow.call("method", "index_select", x, axis, chosen)


def pad(flow: Translation, step: OnnxStep) -> Dynamic:
    """Pad with a number, or by reflecting or repeating what is there."""
    x = flow.dynamic(step)
    pads = wholes(flow, step, 1, "pads") or []
    axes = wholes(flow, step, 3, "axes") or list(range(x.rank))
    value = float(flow.constant(step, 2).reshape(-1)[0]) if flow.given(step, 2) else step.real("value", 0.0)
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}.get(
        step.text("mode", "constant")
    )
    if mode is None or len(pads) != 2 * len(axes):
        raise unsupported(step, "a mode of its own")
    around = [0] * (2 * x.rank)
    for place, axis in enumerate(axes):
        if not -x.rank <= axis < x.rank:
            raise refused("bad-argument", f"Pad {shown(step.name)} has an axis that its input lacks.")
        at = 2 * (x.rank - 1 - axis % x.rank)
        around[at], around[at + 1] = pads[place], pads[place + len(axes)]
    while len(around) > 2 and around[-2:] == [0, 0]:
        around = around[:-2]
    if not any(around):
        return x
    return flow.function("functional.pad", x, around, mode, *([value] if mode == "constant" else []))


def _reduction(target: str) -> Handler:
    def handle(flow: Translation, step: OnnxStep) -> Dynamic:
        x, axes = flow.dynamic(step), wholes(flow, step, 1, "axes")
        if not axes and step.whole("noop_with_empty_axes", 0):
            return x
        axes = axes or list(range(x.rank))
        keep = step.whole("keepdims", 1) == 1
        if target == "torch.norm":
            return flow.function(target, x, 2, axes, keep)
        return flow.function(target, x, axes, keep)

    return handle


def einsum(flow: Translation, step: OnnxStep) -> Dynamic:
    """Einsum by its equation."""
    parts = [flow.dynamic(step, place) for place in range(len(step.inputs))]
    return flow.function("torch.einsum", step.text("equation", ""), *parts)


def resize(flow: Translation, step: OnnxStep) -> Dynamic:
    """Resize, and Upsample of older opsets: nearest and linear, as `interpolate` computes them.

    Raises:
        Refused: `unknown-operator`, for coordinates that torch does not have.
    """
    x, place = flow.dynamic(step), 2 if step.operator == "Resize" and flow.opset > 10 else 1
    mode, coordinates = step.text("mode", "nearest"), step.text("coordinate_transformation_mode", "half_pixel")
    arguments: dict[str, Any] = {"size": None, "scale_factor": None}
    if flow.given(step, place) and flow.constant(step, place).size:
        scales = [float(scale) for scale in flow.constant(step, place).reshape(-1)]
        whole = all(scale == int(scale) for scale in scales)
        arguments["scale_factor"] = scales[-(x.rank - 2) :]
    else:
        shapes = [tuple(int(size) for size in array) for array in flow.static(step, place + 1).arrays]
        whole = all(size % given == 0 for size, given in zip(shapes[0][2:], x.shapes[0][2:], strict=False))
        arguments["size"] = list(shapes[0][-(x.rank - 2) :])
        if len({shape[2 - x.rank :] for shape in shapes}) > 1:
            raise flow.varies(step)
    old = flow.opset < 11
    known = _nearest(step, coordinates, old, whole) if mode == "nearest" else _linear(mode, coordinates, old, x.rank)
    if known is None or step.whole("antialias", 0) or step.whole("exclude_outside", 0) or "axes" in step.attributes:
        raise unsupported(step, f"the mode {mode}, {coordinates}")
    arguments |= known
    if flow.functional(step):
        return flow.function("functional.interpolate", x, **arguments)
    return flow.layer(step, "Upsample", arguments | {"recompute_scale_factor": None}, x)


def _nearest(step: OnnxStep, coordinates: str, old: bool, whole: bool) -> dict[str, Any] | None:
    rounding = "floor" if old else step.text("nearest_mode", "round_prefer_floor")
    if old or (coordinates, rounding) == ("asymmetric", "floor"):
        return {"mode": "nearest", "align_corners": None}
    if whole and coordinates == "half_pixel":  # where sizes are multiples, the nearest one is the same by any rounding
        return {"mode": "nearest", "align_corners": None}
    return None


def _linear(mode: str, coordinates: str, old: bool, rank: int) -> dict[str, Any] | None:
    name = {3: "linear", 4: "bilinear"}.get(rank)
    if (
        mode != "linear"
        or name is None
        or old
        or coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners")
    ):
        return None
    return {"mode": name, "align_corners": coordinates == "align_corners"}


PARTS: Final[Mapping[str, Handler]] = {
    "Concat": concatenate,
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Pad": pad,
    "ReduceMean": _reduction("torch.mean"),
    "ReduceSum": _reduction("torch.sum"),
    "ReduceMax": _reduction("torch.amax"),
    "ReduceMin": _reduction("torch.amin"),
    "ReduceL2": _reduction("torch.norm"),
    "Einsum": einsum,
    "Resize": resize,
    "Upsample": resize,
}
