"""Follows the code of a trace from the model's forward down to its layers, and lists the calls it makes, in order.

Nothing is computed: a name that the code uses is looked up among the model's modules and tensors, and an operator is only
written down. A layer of torch.nn whose calls are those of such a layer becomes one call of that layer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.pickle_values import BuiltObject, Global, StoredTensor
from layerscope.models.formats.torchscript.calls import (
    DEVICE,
    Constant,
    Own,
    Recognise,
    TracedCall,
    TracedLayer,
    Use,
    Value,
    unknown,
)
from layerscope.models.formats.torchscript.code import Classes, ModuleClass, bad_code, scripted
from layerscope.models.formats.torchscript.created import CREATING, MOST, created, too_large
from layerscope.models.formats.torchscript.numbers import number_call
from layerscope.models.formats.torchscript.operator_calls import is_random, is_training, operator_call
from layerscope.models.remedies import IMAGES_ALONE, OTHERWISE, SCORES_ALONE
from layerscope.models.safe_form.graph_nodes import MAX_DEPTH, MAX_NESTING
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

SCORES: Final = "logits"
"""How the scores are called where a model gives back several things, as those of transformers do."""
MAX_STEPS: Final = 45_000
"""Statements, calls and items of lists in all, at each use. The most that a classifier of torchvision takes is 33,200."""

_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_CONSTANT: Final = re.compile(r"c([0-9]{1,6})", re.ASCII)
_METHOD: Final = re.compile(r"forward[0-9]*", re.ASCII)


@dataclass(slots=True)
class _Frame:
    """The values by name in one forward; in a Sequential, `flow` is what the next of its modules is given."""

    module: BuiltObject
    sequential: bool
    values: dict[str, Value]
    flow: Value = None


@dataclass(slots=True)
class Interpreter:
    """The one walk through a trace; `calls` are those it came to, `unplaced` the layers whose input it does not tell."""

    classes: Classes
    constants: Sequence[Value]
    names: Mapping[int, str]
    """The full name of each module, by the id of its record."""
    tensors: Mapping[str, Own]
    recognise: Recognise
    calls: list[TracedCall] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    in_training: bool = False
    drops: bool = False
    """Whether it drops values at random."""
    taken_out: bool = False
    """Whether the scores are one of several results, or the only one in a row."""
    _numbers: int = 0  # in tensors that the trace makes of numbers
    _left: int = MAX_STEPS
    _depth: int = 0

    def follow(self, root: BuiltObject) -> Value:
        """Follow the forward of the whole model for one input, and return what it gives back.

        Raises:
            Refused: `several-inputs`, `several-outputs`, `too-deep`, `too-many-nodes`, `unknown-operator`, `scripted-model`,
                `bad-code`.
        """
        code = class_of(self.classes, root)
        method = code.methods.get("forward")
        if method is None:
            raise scripted("the model has no forward")
        if len(method.parameters) != 1:
            raise Refused(
                "several-inputs",
                f"The trace takes {len(method.parameters)} inputs, not one batch of images.",
                IMAGES_ALONE,
            )
        images = TracedCall("input")
        self.calls.append(images)
        try:
            result = self._body(_Frame(root, _is_sequential(root), {}, images), code, "forward", [images])
        except RecursionError as error:
            raise Refused("too-deep", "The calls of the trace are nested too deep.", UPLOAD_CALL) from error
        scores, self.taken_out = _scores(result)
        return scores

    # Modules ---------------------------------------------------------------------------------------------------------

    def _call_module(self, frame: _Frame, module: Value, method: str, inputs: list[Value]) -> Value:
        if not isinstance(module, BuiltObject):
            raise bad_code("forward is called on what is no module")
        code = class_of(self.classes, module)
        before, self.calls = self.calls, []
        flow = inputs[0] if inputs else frame.flow if frame.sequential else None
        inner = _Frame(module, _is_sequential(module), {}, flow)
        result = self._body(inner, code, method, inputs)
        made, self.calls = self.calls, before
        name = self.names[id(module)]
        if code.name == "Identity" and not made and not inputs:
            return self._identity(frame, name, flow)
        found = self.recognise(Use(name, qualified(module), tuple(inputs), made, result))
        if found is None:
            self.calls += made
        else:
            layer, given = found
            result = self._add(TracedCall("layer", {"input": given}, layer=layer))
            if layer.kind in _RECURRENT:
                result = self._item(result, 0)
        if result is not None:
            frame.flow = result
        return result

    def _identity(self, frame: _Frame, name: str, flow: Value) -> None:
        # A trace does not say what passes through an Identity; only the order in a Sequential does.
        if flow is None:
            self.unplaced.append(name)
        else:
            frame.flow = self._add(TracedCall("layer", {"input": flow}, layer=TracedLayer(name, "Identity", {})))

    def _body(self, frame: _Frame, code: ModuleClass, method: str, inputs: list[Value]) -> Value:
        found = code.methods.get(method)
        if found is None or len(found.parameters) != len(inputs):
            raise bad_code(f"{shown(code.name)} has no {shown(method)} that takes {len(inputs)} values")
        if self._depth > MAX_DEPTH:
            raise Refused("too-deep", f"The modules of the trace are nested more than {MAX_DEPTH} deep.", UPLOAD_CALL)
        frame.values = {"self": frame.module, **dict(zip(found.parameters, inputs, strict=True))}
        self._depth += 1
        for statement in found.body:
            self._step()
            if isinstance(statement, ast.Return):
                self._depth -= 1
                return None if statement.value is None else self._value(frame, statement.value)
            self._assign(frame, statement)
        raise bad_code(f"{shown(method)} of {shown(code.name)} returns nothing")

    def _assign(self, frame: _Frame, statement: ast.stmt) -> None:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(name)], value=value)
                | ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value)
            ):
                frame.values[name] = self._value(frame, value)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                whole = self._value(frame, value)
                for index, target in enumerate(targets):
                    if not isinstance(target, ast.Name):
                        raise bad_code("a value is given to what is no name")
                    frame.values[target.id] = self._item(whole, index)
            case ast.Expr(value=value):
                self._value(frame, value)
            case _:
                raise scripted(f"it has a statement that traces have not: {type(statement).__name__}")

    # Expressions -----------------------------------------------------------------------------------------------------

    def _value(self, frame: _Frame, node: ast.expr) -> Value:
        self._step()
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) if isinstance(value, int | float):
                return -value
            case ast.Name(name):
                if name not in frame.values:
                    raise bad_code(f"it uses {shown(name)} before there is one")
                return frame.values[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                values = [self._value(frame, item) for item in items]
                return self._counted(values if isinstance(node, ast.List) else tuple(values))
            case ast.Dict(keys=keys, values=given):
                return {_text(key): self._value(frame, value) for key, value in zip(keys, given, strict=True)}
            case ast.Attribute(value=ast.Name("CONSTANTS"), attr=name):
                return self._constant(name)
            case ast.Attribute(value=owner, attr=name):
                return self._member(self._value(frame, owner), name)
            case ast.Call():
                return self._call(frame, node)
        raise bad_code(f"it has an expression that traces have not: {type(node).__name__}")

    def _call(self, frame: _Frame, node: ast.Call) -> Value:
        kwargs = {str(keyword.arg): self._value(frame, keyword.value) for keyword in node.keywords}
        match node.func:
            case ast.Name("annotate") if len(node.args) == 2 and not kwargs:
                return self._value(frame, node.args[1])  # the first is a type
            case ast.Name(name) if not kwargs:
                return self._builtin(name, [self._value(frame, item) for item in node.args])
            case ast.Attribute(value=ast.Name("torch"), attr="device"):
                return DEVICE
            case ast.Attribute(value=ast.Name("torch"), attr=name):
                return self._operator(name, [self._value(frame, item) for item in node.args], kwargs)
            case ast.Attribute(value=ast.Attribute(value=ast.Name("ops"), attr="prim"), attr="NumToTensor"):
                return self._value(frame, node.args[0]) if len(node.args) == 1 else None
            case ast.Attribute(value=ast.Attribute(value=ast.Name("ops"), attr=space), attr=name):
                raise Refused(
                    "unknown-operator", f"The trace uses {shown(f'ops.{space}.{name}')}, unknown here.", OTHERWISE
                )
            case ast.Attribute(value=owner, attr=name) if _METHOD.fullmatch(name) and not kwargs:
                module = self._value(frame, owner)
                return self._call_module(frame, module, name, [self._value(frame, item) for item in node.args])
            case ast.Attribute(attr=name):
                raise scripted(f"it calls {shown(name)}")
        raise bad_code("it calls what is no function")

    def _builtin(self, name: str, args: list[Value]) -> Value:
        match name, args:
            case "getattr", [BuiltObject() as module, str() as member]:
                return self._member(module, member)
            case "int" | "float", [TracedCall(number=True) | Constant() | int() | float() as value] if (
                value is not None
            ):
                return number_call(name, [value], self._add)
        raise unknown(name) if name != "getattr" else bad_code("getattr is used on what is no module")

    def _operator(self, name: str, args: list[Value], kwargs: Mapping[str, Value]) -> Value:
        self._counted([*args, *kwargs.values()])
        if name in CREATING and (stored := created(name, args, kwargs)) is not None:
            return self._created_of(stored)
        made = operator_call(name, args, kwargs, self._add)
        self.in_training |= is_training(made)
        self.drops |= is_random(made)
        return made

    def _created_of(self, stored: StoredTensor) -> TracedCall:
        """Return a tensor that the trace makes anew in each run: a copy of a constant, as a later step may change it."""
        self._numbers += max(1, stored.array.size)
        if self._numbers > MOST:
            raise too_large(self._numbers)
        return self._add(TracedCall("clone", {"input": Constant(stored)}))

    def _member(self, module: Value, name: str) -> Value:
        state = module.state if isinstance(module, BuiltObject) else None
        if not isinstance(state, dict) or name not in state:
            raise bad_code(f"it uses {shown(name)}, which is no part of the model")
        value = state[name]
        if isinstance(value, StoredTensor):
            return self.tensors[f"{self.names[id(module)]}.{name}".lstrip(".")]
        if isinstance(value, BuiltObject) and id(value) in self.names:
            return value
        raise bad_code(f"it uses {shown(name)}, which is neither a tensor nor a module")

    def _constant(self, name: str) -> Constant:
        found = _CONSTANT.fullmatch(name)
        number = int(found[1]) if found else len(self.constants)
        if number >= len(self.constants) or not isinstance(self.constants[number], StoredTensor):
            raise bad_code(f"there is no constant {shown(name)}")
        return Constant(self.constants[number])

    def _item(self, whole: Value, index: int) -> Value:
        if isinstance(whole, list | tuple):
            if index >= len(whole):
                raise bad_code("more names than values")
            return whole[index]
        return self._add(TracedCall("item", {"of": whole, "index": index}))

    def _add(self, call: TracedCall) -> TracedCall:
        self._step()
        self.calls.append(call)
        return call

    def _counted(self, value: Value, depth: int = 0) -> Value:
        """Return a value, and count what the lists in it hold, again at each use: [a, a] of [b, b] and so on grows fast."""
        if depth > MAX_NESTING:
            raise Refused("too-deep", f"The trace has lists that are nested more than {MAX_NESTING} deep.", UPLOAD_CALL)
        for item in value:
            if isinstance(item, list | tuple):
                self._step(len(item) + 1)
                self._counted(item, depth + 1)
        return value

    def _step(self, count: int = 1) -> None:
        self._left -= count
        if self._left < 0:
            raise Refused("too-many-nodes", f"The trace has more than {MAX_STEPS} steps.", UPLOAD_CALL)


def _text(key: ast.expr | None) -> str:
    if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
        raise bad_code("it has a key that is no text")
    return key.value


def _scores(result: Value) -> tuple[Value, bool]:
    """Return the scores of what the model gives back, and whether they were taken out of a row or a table of results."""
    if not isinstance(result, dict | list | tuple):
        return result, False
    values = list(result.values()) if isinstance(result, dict) else list(result)
    named = result.get(SCORES) if isinstance(result, dict) else None
    if len(values) > 1 and named is None:
        message = f"The trace gives back {len(values)} values, and calls none {SCORES}."
        raise Refused("several-outputs", message, SCORES_ALONE)
    return named if named is not None else next(iter(values), None), True


def qualified(module: BuiltObject) -> str:
    """Return the full name of a module's class, without what torch puts in it to tell equal names apart."""
    name = module.type.dotted if isinstance(module.type, Global) else ""
    return ".".join(part for part in name.split(".") if not part.startswith("___torch_mangle_"))


def class_of(classes: Classes, module: BuiltObject) -> ModuleClass:
    """Return the class of a module.

    Raises:
        Refused: as of `Classes.find`; and `bad-code`, the record names none.
    """
    if not isinstance(module.type, Global) or not module.type.module.startswith("__torch__"):
        raise bad_code("a module has no class")
    return classes.find(module.type.module, module.type.name)


def _is_sequential(module: BuiltObject) -> bool:
    """Return whether the modules inside are numbered, as those of a Sequential are."""
    state = module.state if isinstance(module.state, dict) else {}
    inside = [name for name, value in state.items() if isinstance(value, BuiltObject)]
    return bool(inside) and inside == [str(number) for number in range(len(inside))]
