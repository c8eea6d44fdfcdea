"""From the calls of a trace or an exported program to the nodes of the safe form; those that nothing depends on are left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.torchscript.calls import DEVICE, Constant, Own, TracedCall, Value, leaves, unknown
from layerscope.models.formats.torchscript.code import bad_code
from layerscope.models.formats.torchscript.operators import OPERATORS, TraceOperator, base_name
from layerscope.models.formats.torchscript.special import SPECIAL, as_number, dtype_of
from layerscope.models.remedies import SCORES_ALONE
from layerscope.models.safe_form.graph_nodes import Node, Operation, Ref
from layerscope.models.safe_form.graph_spec import MAX_NODES
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.vocabulary import FUNCTIONS, METHODS
from layerscope.schemas.errors import Refused

_IN_PLACE: Final = frozenset(
    ["celu", "elu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "relu6", "selu", "silu", "threshold"]
)
_FRESH: Final = frozenset({"new_zeros", "new_ones", "zeros_like", "ones_like"})
"""What is made like a value, but does not hold it."""
_TENSORS: Final = frozenset({"matmul", "mm", "bmm", "maximum", "minimum", "cat", "stack"})
"""Operators that take no number for a tensor of one."""


class Writer:
    """Writes calls as nodes; `constants` are the tensors that belong to no module, `batch` what a shape was fixed to."""

    def __init__(self, taken: frozenset[str], fixed: int | None = None) -> None:
        """Write nodes for a model that has modules and tensors of the names in `taken`.

        `fixed` is the batch that its shapes were made for: 0 where they are for any, None where nothing tells.
        """
        self._fixed = fixed
        self.nodes: list[Node] = []
        self.constants: dict[str, StoredTensor] = {}
        self.batch: int | None = None
        self._taken = taken
        self._values: dict[int, Any] = {}
        self._constant_names: dict[int, str] = {}
        self._of_images: set[int] = set()

    def write(self, calls: Sequence[TracedCall], output: Value) -> tuple[Node, ...]:
        """Return the nodes of a whole trace.

        Raises:
            Refused: `several-outputs`, `unknown-operator`, `too-many-nodes`, `bad-code`.
        """
        if not isinstance(output, TracedCall) or output.number:
            raise Refused(
                "several-outputs",
                "The model does not return one tensor.",
                SCORES_ALONE,
            )
        live = _live(calls, output)
        for call in calls:
            if id(call) in live:
                self._values[id(call)] = self._write(call)
                if self._holds_images(call):
                    self._of_images.add(id(call))
        self.node("output", "", (self.value(output),))
        return tuple(self.nodes)

    def node(self, operation: Operation, target: str, args: tuple[Any, ...] = (), **kwargs: Any) -> Ref:
        """Add a node, and return its value."""
        if len(self.nodes) >= MAX_NODES:
            raise Refused("too-many-nodes", f"The model has more than {MAX_NODES} steps.", UPLOAD_CALL)
        self.nodes.append(Node(operation, target, args, kwargs))
        return Ref(len(self.nodes) - 1)

    def value(self, value: Value) -> Any:
        """Return a value as the argument of a node has it."""
        match value:
            case TracedCall():
                if id(value) not in self._values:
                    raise bad_code("a value is used before there is one")
                return self._values[id(value)]
            case Own():
                return self.node("tensor", value.name)
            case Constant():
                return self.node("tensor", self._constant(value.stored))
            case list() | tuple():
                return type(value)(self.value(item) for item in value)
            case float() if not math.isfinite(value):
                raise bad_code("a number is not finite")
            case None | bool() | int() | float() | str() | Ref():
                return value
        raise bad_code("an operator is given what is no value")

    def depends(self, value: Value) -> bool:
        """Return whether a value was computed from the images."""
        return isinstance(value, TracedCall) and id(value) in self._of_images

    def _holds_images(self, call: TracedCall) -> bool:
        if call.operator == "input":
            return True
        fresh = call.number or call.operator in _FRESH
        return not fresh and any(self.depends(value) for value in leaves(list(call.arguments.values())))

    def _constant(self, stored: StoredTensor) -> str:
        if id(stored) not in self._constant_names:
            number = len(self.constants)
            while (name := f"_constant{number}") in self._taken or name in self.constants:
                number += 1
            self._constant_names[id(stored)] = name
            self.constants[name] = stored
        return self._constant_names[id(stored)]

    # Calls -----------------------------------------------------------------------------------------------------------

    def _write(self, call: TracedCall) -> Any:
        name = base_name(call.operator)[0]
        if call.in_place and isinstance(call.first, Own | Constant):
            raise Refused(
                "changes-itself",
                "The forward pass changes a tensor of the model, so no two runs are alike.",
                UPLOAD_CALL,
            )
        if call.operator == "input":
            return self.node("input", "")
        if call.layer is not None:
            return self.node("layer", call.layer.name, (self.value(call.first),))
        if call.operator == "item":
            return self._item(call)
        if call.number:
            return self._number(call)
        if name in OPERATORS:
            operator = OPERATORS[name]
            special = SPECIAL.get(name) or SPECIAL.get(operator.target)
            return special(self, call) if special else self.function(call, operator)
        return self._same(call)

    def _item(self, call: TracedCall) -> Any:
        whole = self.value(call.first)
        index = call.arguments["index"]
        return self.node("function", "operator.getitem", (whole, index)) if isinstance(whole, Ref) else whole[index]

    def _number(self, call: TracedCall) -> Any:
        args = tuple(self.value(value) for value in call.arguments.values())
        if call.operator in ("size", "numel", "dim"):
            return self.node("method", call.operator, args)
        if call.operator not in FUNCTIONS:
            raise unknown(call.operator, " on sizes")
        return self.node("function", call.operator, args)

    def function(self, call: TracedCall, operator: TraceOperator) -> Any:
        """Write an operator by the function that its table names.

        Raises:
            Refused: `unknown-operator`.
        """
        name, in_place = base_name(call.operator)
        kwargs = self._options(call, operator)
        first = self.value(call.first)
        if "." not in operator.target:
            raise unknown(call.operator, " outside a layer of torch.nn")
        if in_place and call.operator in METHODS:
            return self.node("method", call.operator, (first,), **kwargs)
        if in_place and name not in _IN_PLACE:
            raise unknown(call.operator)
        return self.node("function", operator.target, (first,), **kwargs, **({"inplace": True} if in_place else {}))

    def _options(self, call: TracedCall, operator: TraceOperator) -> dict[str, Any]:
        chosen = {}
        for parameter in operator.parameters[1:]:
            value = call.arguments[parameter.name]
            if not parameter.ignored and not parameter.fixed and value != parameter.default:
                chosen[parameter.name] = dtype_of(value) if parameter.name == "dtype" else self.value(value)
        return chosen

    def _same(self, call: TracedCall) -> Any:
        """Write an operator that the safe form knows under its own name."""
        name = call.operator
        positional = [value for key, value in call.arguments.items() if key.isdigit() and value is not DEVICE]
        if name not in _TENSORS:
            positional[1:] = [as_number(value) for value in positional[1:]]
        if name in ("view", "reshape"):
            positional[1:] = self._free_batch(positional)
        args = tuple(self.value(value) for value in positional)
        kwargs = {key: self._keyword(key, value) for key, value in call.arguments.items() if not key.isdigit()}
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        target = next((known for known in (f"torch.{name}", f"operator.{name}") if known in FUNCTIONS), None)
        if target is not None and not call.in_place:
            return self.node("function", target, args, **kwargs)
        return self.node("method", name, args, **kwargs)

    def _keyword(self, name: str, value: Value) -> Any:
        return dtype_of(value) if name == "dtype" else self.value(as_number(value))

    def _free_batch(self, positional: list[Value]) -> list[Value]:
        """Return the shape that values of the images are viewed in, for any batch where the trace has its own.

        Where the rest of the shape is fixed, the first axis follows from it; where values are flattened, it stays. A wrong
        guess cannot go unseen: the output would not have a row for each image.

        Raises:
            Refused: `fixed-batch`.
        """
        given, *rest = positional
        shape = rest[0] if rest else None
        if not isinstance(shape, list) or len(shape) < 2 or type(shape[0]) is not int or shape[0] < 1:
            return rest
        of_batch = self._fixed is None or (self._fixed > 0 and shape[0] % self._fixed == 0)
        if not of_batch or not self.depends(given):
            return rest
        self.batch = self.batch or shape[0]
        if -1 not in shape[1:]:
            return [[-1, *shape[1:]]]
        if len(shape) > 2:
            raise Refused(
                "fixed-batch",
                f"The model views its values in the shape {shown(shape)}, which only fits batches like the one it saw.",
                "Write the batch as -1 or x.shape[0], and not as a number or len(x), and trace the model again: "
                "torch.jit.trace(model.eval(), images).save('model.pt')",
            )
        return [[self.node("method", "size", (self.value(given), 0)), *shape[1:]]]


def _live(calls: Sequence[TracedCall], output: Value) -> set[int]:
    """Return the ids of the calls that count: layers, what works in place, the output, and all that those use."""
    live = {id(output)}
    for call in reversed(calls):
        acts = call.operator in ("input", "layer") or (call.in_place and not isinstance(call.first, Own))
        if acts or id(call) in live:
            live.add(id(call))
            live |= {id(value) for value in leaves(list(call.arguments.values()))}
    return live
