"""Follows the steps of an exported program in their order, and lists the calls they are: of operators and of layers.

A program has no modules any more, but says of each step which it came from. Where the steps of one call of a module are
those of a layer of torch.nn, on its own tensors, they become one call of that layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.exported_program import aten
from layerscope.models.formats.exported_program.arguments import CONTIGUOUS, Named
from layerscope.models.formats.exported_program.module_names import Frame
from layerscope.models.formats.exported_program.program import Step
from layerscope.models.formats.exported_program.refusals import WHOLE, bad_program
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.torchscript.calls import (
    Constant,
    Own,
    Recognise,
    TracedCall,
    Use,
    Value,
    leaves,
    unknown,
)
from layerscope.models.formats.torchscript.created import CREATING, MOST, created, too_large
from layerscope.models.formats.torchscript.numbers import number_call
from layerscope.models.formats.torchscript.operator_calls import is_evaluating, is_random, is_training, operator_call
from layerscope.models.formats.torchscript.operators import base_name
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_TARGET: Final = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]{1,100})\.[A-Za-z0-9_]{1,100}", re.ASCII)
_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
_COUNTER: Final = "num_batches_tracked"


@dataclass(slots=True)
class _Group:
    """The steps of one call of a module that may be a layer."""

    frame: Frame
    last: int
    names: set[str] = field(default_factory=set)
    calls: list[TracedCall] = field(default_factory=list)


@dataclass(slots=True)
class Walk:
    """The one walk through a program; `values` are those that it begins with, by their names in the graph."""

    values: dict[str, Value]
    kind_of: Callable[[str], str | None]
    """The class by which layers are known, of a class with its module; None where it is no layer."""
    recognise: Recognise
    calls: list[TracedCall] = field(default_factory=list)
    in_training: bool = False
    in_eval: bool = False
    drops: bool = False
    """Whether it drops values at random."""
    _created: int = 0  # numbers in tensors that the program makes of numbers
    _changes: bool = False

    def follow(self, steps: Sequence[Step], stacks: Sequence[tuple[Frame, ...]], output: Any) -> Value:
        """Follow all steps, and return the value that the program gives back.

        Raises:
            Refused: `unknown-operator`, `changes-itself`, `several-outputs`, `bad-program`, `bad-code`; and as of
                `Recogniser.layer`.
        """
        groups = self._groups(stacks)
        live = _live(steps, output)
        self._changes = any(live[at] and _changes(step) for at, step in enumerate(steps))
        leaving = _leaving([step for at, step in enumerate(steps) if live[at]], compress(groups, live), output)
        for index, step in enumerate(steps):
            group = groups[index]
            before = len(self.calls)
            if live[index]:
                self._step(step)
            if group is not None:
                group.calls += self.calls[before:]
                group.names |= set(_flat(step.outputs))
                if group.last == index:
                    self._close(group, leaving.get(id(group), set()))
        return self._value(output)

    # Layers ----------------------------------------------------------------------------------------------------------

    def _groups(self, stacks: Sequence[tuple[Frame, ...]]) -> list[_Group | None]:
        """Return for each step the call of a layer that it may be a part of."""
        found: dict[tuple[str, ...], _Group] = {}
        groups: list[_Group | None] = []
        for index, stack in enumerate(stacks):
            depth = next((depth for depth, frame in enumerate(stack) if self.kind_of(_traced(frame.kind))), None)
            if depth is None:
                groups.append(None)
                continue
            key = tuple(frame.key for frame in stack[: depth + 1])
            group = found.setdefault(key, _Group(stack[depth], index))
            group.last = index
            groups.append(group)
        return groups

    def _close(self, group: _Group, leaving: set[str]) -> None:
        """Put one call of a layer in the place of a group's calls, if they are those of a layer."""
        if len(leaving) != 1:
            return
        (name,) = leaving
        made = {id(call) for call in group.calls}
        inputs = tuple(
            value
            for call in group.calls
            for value in leaves(list(call.arguments.values()))
            if isinstance(value, TracedCall) and id(value) not in made
        )
        found = self.recognise(Use(group.frame.name, _traced(group.frame.kind), inputs, group.calls, self.values[name]))
        if found is None:
            return
        layer, given = found
        self.calls = [call for call in self.calls if id(call) not in made or call.number]
        result = self._add(TracedCall("layer", {"input": given}, layer=layer))
        self.values[name] = self._item(result, 0) if layer.kind in _RECURRENT else result

    # Steps -----------------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        if step.target in aten.COMPARISONS:
            return
        if step.target in aten.NUMBERS:
            self._enter(step, self._number(aten.NUMBERS[step.target], self._arguments(step)[0]))
            return
        found = _TARGET.fullmatch(step.target)
        if found is None:
            raise Refused("unknown-operator", f"The model uses {shown(step.target)}, which is not known here.", WHOLE)
        name = found[1]
        if name in aten.ASSERTIONS:
            return
        args, kwargs = self._arguments(step)
        if name in aten.SIZES:
            self._enter(step, number_call(aten.SIZES[name], args, self._add))
        elif name in aten.ALIASES and args:
            self._enter(step, args[0])
        else:
            self._operator(step, name, args, kwargs)

    def _operator(self, step: Step, name: str, args: list[Value], kwargs: dict[str, Value]) -> None:
        first = args[0] if args else None
        if base_name(name)[1] and isinstance(first, Own) and not first.name.endswith(_COUNTER):
            raise changes_itself(first.name)
        if name in aten.SHAPED and step.sizes and len(args) == 2 and isinstance(args[1], list) and -1 in args[1]:
            args[1] = list(step.sizes)
        if name in CREATING and (stored := created(name, args, kwargs)) is not None:
            self._enter(step, self._constant(stored))
            return
        plain, args, single = aten.rewritten(name, args, kwargs)
        made = operator_call(plain, args, kwargs, self._add)
        if plain == "clone" and kwargs.get("memory_format") == CONTIGUOUS:
            made = operator_call("contiguous", [made], {}, self._add)
        self.in_training |= is_training(made)
        self.drops |= is_random(made)
        self.in_eval |= is_evaluating(made)
        if single and step.outputs:
            self._named(step.outputs[0], made)
        else:
            self._enter(step, made)

    def _constant(self, stored: StoredTensor) -> Value:
        """Return a tensor that the program makes anew in each run: where it changes any in place, a copy is meant."""
        self._created += max(1, stored.array.size)
        if self._created > MOST:
            raise too_large(self._created)
        constant = Constant(stored)
        return self._add(TracedCall("clone", {"input": constant})) if self._changes else constant

    def _number(self, name: str, args: list[Value]) -> Value:
        if name in ("int", "float"):
            return number_call(name, args, self._add)
        return self._add(TracedCall(name, {str(index): value for index, value in enumerate(args)}, number=True))

    def _arguments(self, step: Step) -> tuple[list[Value], dict[str, Value]]:
        args = [self._value(one.value) for one in step.arguments if not one.keyword]
        return args, {one.name: self._value(one.value) for one in step.arguments if one.keyword}

    def _value(self, value: Any) -> Value:
        match value:
            case Named(name):
                if name not in self.values:
                    raise _missing(name)
                return self.values[name]
            case list():
                return [self._value(item) for item in value]
            case dict():
                raise unknown("cond", " with graphs of its own")
        return value

    def _enter(self, step: Step, made: Value) -> None:
        """Give the results of a step their names: one value, several, or a list of them."""
        outputs = step.outputs
        if len(outputs) == 1 and isinstance(outputs[0], str):
            self.values[outputs[0]] = made
            return
        for index, name in enumerate(_flat(outputs)):
            self.values[name] = self._item(made, index)

    def _named(self, name: Any, value: Value) -> None:
        if not isinstance(name, str):
            raise bad_program("a step gives back what has no name")
        self.values[name] = value

    def _item(self, whole: Value, index: int) -> TracedCall:
        return self._add(TracedCall("item", {"of": whole, "index": index}))

    def _add(self, call: TracedCall) -> TracedCall:
        self.calls.append(call)
        return call


def changes_itself(name: str) -> Refused:
    """Return the refusal of a program that changes a tensor of the model as it runs."""
    return Refused(
        "changes-itself",
        f"The forward pass changes {shown(name)}, a tensor of the model, so no two runs are alike.",
        UPLOAD_CALL,
    )


def _missing(name: str) -> Refused:
    return Refused(
        "unknown-operator",
        f"The model uses {shown(name)}, which is no first result of its step, or is given by none before.",
        UPLOAD_CALL,
    )


def _traced(kind: str) -> str:
    """Return a class as traces name it."""
    return f"__torch__.{kind}"


def _flat(outputs: Sequence[Any]) -> list[str]:
    return [name for output in outputs for name in (output if isinstance(output, list) else [output]) if name]


def _live(steps: Sequence[Step], output: Any) -> list[bool]:
    """Tell of each step whether anything that the program gives back depends on it, or it changes something in place."""
    used = set(_names(output))
    live: list[bool] = []
    for step in reversed(steps):
        live.append(_changes(step) or not step.outputs or not used.isdisjoint(_flat(step.outputs)))
        if live[-1]:
            used |= {name for argument in step.arguments for name in _names(argument.value)}
    return live[::-1]


def _changes(step: Step) -> bool:
    """Tell whether a step changes a tensor in place."""
    found = _TARGET.fullmatch(step.target)
    return found is not None and base_name(found[1])[1]


def _names(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Named):
            yield one.name


def _leaving(steps: Sequence[Step], groups: Iterable[_Group | None], output: Any) -> Mapping[int, set[str]]:
    """Return the names that are given within each group and used outside it."""
    home: dict[str, int] = {}
    groups = list(groups)
    leaving: dict[int, set[str]] = {id(group): set() for group in groups if group is not None}
    for step, group in zip(steps, groups, strict=True):
        for argument in step.arguments:
            _count(argument.value, id(group), home, leaving)
        home |= dict.fromkeys(_flat(step.outputs), id(group))
    _count(output, 0, home, leaving)
    return leaving


def _count(value: Any, here: int, home: Mapping[str, int], leaving: Mapping[int, set[str]]) -> None:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Named) and home.get(one.name, here) != here and home[one.name] in leaving:
            leaving[home[one.name]].add(one.name)
