"""Operators of a trace that the safe form writes in another way than by one function of its own; part of `nodes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from layerscope.models.formats.torchscript.calls import Constant, Own, TracedCall, Value, unknown
from layerscope.models.formats.torchscript.layer_calls import interpolation
from layerscope.models.formats.torchscript.operators import DTYPES, OPERATORS, PADDING, UPSAMPLING, TraceOperator
from layerscope.models.safe_form.graph_nodes import DType, Operation, Ref
from layerscope.models.safe_form.safetensors_file import shown

IMAGES: Final = Ref(0)
"""The batch, which is where the device is that a new tensor belongs on."""
_END: Final = 2**62
"""What a slice to the end ends at, or beyond."""


class NodeWriter(Protocol):
    """What `nodes.Writer` does for the operators here."""

    def value(self, value: Value) -> Any:
        """Return a value as the argument of a node has it."""

    def node(self, operation: Operation, target: str, args: tuple[Any, ...] = (), **kwargs: Any) -> Ref:
        """Add a node, and return its value."""

    def function(self, call: TracedCall, operator: TraceOperator) -> Any:
        """Write an operator by the function that its table names."""


def as_number(value: Value) -> Value:
    """Return a constant of one number as that number, and anything else as it is."""
    return value.number if isinstance(value, Constant) and value.number is not None else value


def dtype_of(value: Value) -> DType | None:
    """Return a dtype by the number that a trace has for it.

    Raises:
        Refused: `unknown-operator`.
    """
    if value is None:
        return None
    if type(value) is not int or value not in DTYPES:
        raise unknown("to", f" with dtype={shown(value) if isinstance(value, int) else '?'}")
    return DType(DTYPES[value])


def _convolution(writer: NodeWriter, call: TracedCall) -> Any:
    arguments = call.arguments
    names = ["weight", "bias", "stride", "padding", "dilation", "groups"]
    if turned := arguments.get("transposed", False):
        names.append("output_padding")
    kwargs = {name: writer.value(arguments[name]) for name in names if arguments[name] is not None}
    axes = len(arguments["stride"]) if isinstance(arguments["stride"], list) else 0
    if axes not in (1, 2, 3):
        raise unknown(call.operator, f" on {axes} axes")
    target = f"functional.conv{'_transpose' if turned else ''}{axes}d"
    return writer.node("function", target, (writer.value(call.first),), **kwargs)


def _batch_norm(writer: NodeWriter, call: TracedCall) -> Any:
    arguments = dict(call.arguments)
    for name in ("training", "use_input_stats"):
        if arguments.get(name) and arguments["running_mean"] is not None:
            arguments[name] = False  # traced in training
    operator = OPERATORS[call.operator]
    return writer.function(TracedCall(call.operator, arguments), operator)


def _without_dropout(writer: NodeWriter, call: TracedCall) -> Any:
    return writer.value(call.first)


def _attention(writer: NodeWriter, call: TracedCall) -> Any:
    return writer.function(TracedCall(call.operator, {**call.arguments, "dropout_p": 0.0}), OPERATORS[call.operator])


def _pooled_maximum(writer: NodeWriter, call: TracedCall) -> Any:
    target = OPERATORS[call.operator].target
    args = (writer.value(call.first), writer.value(call.arguments["output_size"]))
    return writer.node("function", target, args, return_indices=True)


def _pad(writer: NodeWriter, call: TracedCall) -> Any:
    mode = PADDING.get(call.operator, call.arguments.get("mode"))
    value = call.arguments.get("value")
    kwargs = {"value": value} if mode == "constant" and value else {}
    args = (writer.value(call.first), writer.value(call.arguments["pad"]))
    return writer.node("function", "functional.pad", args, mode=writer.value(mode), **kwargs)


def _upsample(writer: NodeWriter, call: TracedCall) -> Any:
    kwargs = {name: writer.value(value) for name, value in interpolation(call).items() if value is not None}
    return writer.node("function", "functional.interpolate", (writer.value(call.first),), **kwargs)


def _slice(writer: NodeWriter, call: TracedCall) -> Any:
    start, end, step = (call.arguments[name] for name in ("start", "end", "step"))
    bounds = (
        None if start == 0 else start,
        None if isinstance(end, int) and end > _END else end,
        None if step == 1 else step,
    )
    if bounds == (None, None, None):
        return writer.value(call.first)
    return _getitem(writer, call, slice(*(writer.value(bound) for bound in bounds)), call.arguments["dim"])


def _getitem(writer: NodeWriter, call: TracedCall, index: slice, axis: Value) -> Any:
    if type(axis) is not int or abs(axis) > 8:
        raise unknown(call.operator, " on an axis that is not fixed")
    whole = slice(None, None, None)
    where = (*[whole] * axis, index) if axis >= 0 else (..., index, *[whole] * (-axis - 1))
    return writer.node("function", "operator.getitem", (writer.value(call.first), where))


def _index(writer: NodeWriter, call: TracedCall) -> Any:
    indices = call.arguments["indices"]
    if not isinstance(indices, list):
        raise unknown(call.operator)
    where = tuple(slice(None, None, None) if index is None else writer.value(index) for index in indices)
    return writer.node("function", "operator.getitem", (writer.value(call.first), where))


def _fill(writer: NodeWriter, call: TracedCall) -> Any:
    if not call.in_place:
        raise unknown(call.operator)
    emptied = writer.node("method", "mul_", (writer.value(call.first), 0))
    value = as_number(call.arguments.get("value", 0))
    return writer.node("method", "add_", (emptied, writer.value(value))) if value != 0 else emptied


def _masked_fill(writer: NodeWriter, call: TracedCall) -> Any:
    if call.in_place:
        raise unknown(call.operator)
    given, mask, value = (as_number(item) for item in call.arguments.values())
    return writer.node("function", "torch.where", (writer.value(mask), writer.value(value), writer.value(given)))


def _subtracted_from(writer: NodeWriter, call: TracedCall) -> Any:
    if call.arguments["alpha"] != 1:
        raise unknown(call.operator, " with alpha")
    args = (writer.value(as_number(call.arguments["other"])), writer.value(call.first))
    return writer.node("function", "operator.sub", args)


def _reciprocal(writer: NodeWriter, call: TracedCall) -> Any:
    return writer.node("function", "operator.truediv", (1, writer.value(call.first)))


def _fresh(writer: NodeWriter, call: TracedCall) -> Any:
    """Write a tensor whose size follows from the images', where they are; of plain numbers it is a constant already."""
    name, arguments = call.operator, call.arguments
    wanted = dtype_of(arguments["dtype"])
    if name == "arange":
        return _counted(writer, call, wanted)
    fill = arguments.get("fill_value", 0)
    if type(fill) not in (bool, int, float):
        raise unknown(name, " with a value that is not fixed")
    kind = wanted or (
        None if name != "full" or type(fill) is float else DType("bool" if fill in (True, False) else "int64")
    )
    options = {} if kind is None else {"dtype": kind}
    made = "new_ones" if name == "ones" or (name == "full" and fill == 1) else "new_zeros"
    found = writer.node("method", made, (IMAGES, writer.value(arguments["size"])), **options)
    return found if fill in (0, 1) else writer.node("function", "operator.add", (found, fill))


def _counted(writer: NodeWriter, call: TracedCall, wanted: DType | None) -> Any:
    """Write a range of whole numbers: ones, summed up one after the other."""
    start, end = call.arguments["start"], call.arguments["end"]
    if end is None:
        start, end = 0, start
    if call.arguments["step"] not in (None, 1) or any(isinstance(one, float) for one in (start, end)):
        raise unknown(call.operator, " with a step, or to what is no size")
    begin = writer.value(start)
    count = writer.value(end) if start == 0 else writer.node("function", "operator.sub", (writer.value(end), begin))
    ones = writer.node("method", "new_ones", (IMAGES, [count]), dtype=DType("int64"))
    summed = writer.node("method", "cumsum", (ones, 0))
    numbers = writer.node("function", "operator.sub", (summed, 1))
    if start != 0:
        numbers = writer.node("function", "operator.add", (numbers, begin))
    return numbers if wanted is None else writer.node("method", "to", (numbers, wanted))


def _to(writer: NodeWriter, call: TracedCall) -> Any:
    given, *rest = (value for key, value in call.arguments.items() if key.isdigit())
    wanted = call.arguments.get("dtype", next((value for value in rest if type(value) is int), None))
    if any(isinstance(value, TracedCall | Own | Constant) for value in rest):
        return writer.node("method", "type_as", (writer.value(given), writer.value(rest[0])))
    return (
        writer.value(given) if wanted is None else writer.node("method", "to", (writer.value(given), dtype_of(wanted)))
    )


SPECIAL: Final[Mapping[str, Callable[[NodeWriter, TracedCall], Any]]] = {
    "convolution": _convolution,
    "batch_norm": _batch_norm,
    "instance_norm": _batch_norm,
    "dropout": _without_dropout,
    "scaled_dot_product_attention": _attention,
    "adaptive_max_pool1d": _pooled_maximum,
    "adaptive_max_pool2d": _pooled_maximum,
    "pad": _pad,
    **dict.fromkeys(PADDING, _pad),
    **dict.fromkeys(UPSAMPLING, _upsample),
    "slice": _slice,
    "index": _index,
    "fill": _fill,
    "masked_fill": _masked_fill,
    "rsub": _subtracted_from,
    "reciprocal": _reciprocal,
    "to": _to,
    "fresh": _fresh,
}
"""By the operator, or by the target that its table gives it."""
