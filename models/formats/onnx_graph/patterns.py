"""Several ONNX steps that together are one layer of torch, written down as one step.

Exporters take apart what has no operator of its own in their opset: x·sigmoid(x) was a SiLU, a matrix product with an
added row was a Linear. The parts are only joined where nothing else uses what passes between them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Final

import numpy as np

from layerscope.models.formats.onnx_graph.program import OnnxStep, Program
from layerscope.models.formats.onnx_graph.tensors import Array

_COMMUTE: Final = frozenset({"Add", "Mul"})
_MAX_TRIES: Final = 64


@dataclass(frozen=True, slots=True)
class _Is:
    """A constant close to this number."""

    number: float


_Pattern = tuple[Any, ...]
"""An operator and its inputs: a pattern, a name to be bound to a value, or a constant."""

_ERF_HALVES: Final[tuple[_Pattern, ...]] = (
    ("Add", ("Erf", ("Div", "x", _Is(math.sqrt(2)))), _Is(1)),
    ("Add", ("Erf", ("Mul", "x", _Is(math.sqrt(0.5)))), _Is(1)),
)
_GELUS: Final[tuple[_Pattern, ...]] = tuple(
    whole
    for half in _ERF_HALVES
    for whole in (
        ("Mul", ("Mul", "x", half), _Is(0.5)),
        ("Mul", ("Mul", "x", _Is(0.5)), half),
        ("Mul", "x", ("Mul", half, _Is(0.5))),
    )
)
_GROUP_NORM: Final[_Pattern] = (
    "Add",
    ("Mul", ("Reshape", ("InstanceNormalization", ("Reshape", "x", "groups"), "ones", "zeros"), "back"), "weight"),
    "bias",
)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a pattern was found: what its names are bound to, and the steps inside it, the last one first."""

    names: Mapping[str, str]
    steps: tuple[int, ...]


class _Steps:
    """The steps of a program, by what they compute and by who uses it."""

    def __init__(self, program: Program) -> None:
        self.steps = program.steps
        self.tensors = program.tensors
        self.makers = {step.outputs[0]: place for place, step in enumerate(program.steps) if step.outputs}
        self.uses = Counter(name for step in program.steps for name in step.inputs)
        self.uses[program.output] += 1

    def find(self, pattern: Any, value: str, found: _Found) -> Iterator[_Found]:
        """Yield each way in which the pattern computes `value`, in keeping with what was found before."""
        if isinstance(pattern, str):
            if found.names.get(pattern, value) == value:
                yield replace(found, names={**found.names, pattern: value})
        elif isinstance(pattern, _Is):
            if self._is(value, pattern.number):
                yield found
        else:
            yield from self._step(pattern, value, found)

    def _step(self, pattern: _Pattern, value: str, found: _Found) -> Iterator[_Found]:
        place = self.makers.get(value)
        operator, *wanted = pattern
        if place is None or self.steps[place].operator != operator or (found.steps and self.uses[value] != 1):
            return
        inputs = self.steps[place].inputs
        if len(inputs) != len(wanted):
            return
        inside = replace(found, steps=(*found.steps, place))
        for order in permutations(inputs) if operator in _COMMUTE else (inputs,):
            yield from self._inputs(wanted, order, inside)

    def _inputs(self, wanted: Sequence[Any], inputs: Sequence[str], found: _Found) -> Iterator[_Found]:
        if not wanted:
            yield found
            return
        for first in self.find(wanted[0], inputs[0], found):
            yield from self._inputs(wanted[1:], inputs[1:], first)

    def _is(self, value: str, number: float) -> bool:
        array = self.tensors.get(value)
        return array is not None and array.size == 1 and bool(np.isclose(array.reshape(-1)[0], number, rtol=1e-3))

    def array(self, name: str) -> Array | None:
        """Return the tensor of this name, if it is one of the file's, or one that is only named again."""
        while name not in self.tensors:
            place = self.makers.get(name)
            if place is None or self.steps[place].operator != "Identity":
                return None
            name = self.steps[place].inputs[0]
        return self.tensors[name]


Rewriting = Callable[[_Steps, OnnxStep, _Found], OnnxStep | None]


def _activation(operator: str) -> Rewriting:
    return lambda steps, last, found: replace(last, operator=operator, inputs=(found.names["x"],), attributes={})


def _hard_swish(steps: _Steps, last: OnnxStep, found: _Found) -> OnnxStep | None:
    gate = steps.steps[found.steps[1]].attributes
    if not np.isclose(gate.get("alpha", 0.2), 1 / 6) or gate.get("beta", 0.5) != 0.5:
        return None
    return _activation("HardSwish")(steps, last, found)


def _linear(steps: _Steps, last: OnnxStep, found: _Found) -> OnnxStep | None:
    weight, bias = steps.array(found.names["weight"]), steps.array(found.names["bias"])
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[1:]:
        return None
    product = steps.steps[found.steps[1]]
    return replace(product, inputs=(*product.inputs, found.names["bias"]), outputs=last.outputs)


def _group_norm(steps: _Steps, last: OnnxStep, found: _Found) -> OnnxStep | None:
    ones, zeros, weight, bias, groups = (
        steps.array(found.names[n]) for n in ("ones", "zeros", "weight", "bias", "groups")
    )
    if ones is None or zeros is None or weight is None or bias is None or groups is None:
        return None
    if groups.tolist() != [0, ones.size, -1] or not (ones == 1).all() or (zeros != 0).any():
        return None
    if any(array.shape[:1] != (array.size,) or array.ndim != 3 for array in (weight, bias)):
        return None
    norm = steps.steps[found.steps[3]]
    attributes = {"num_groups": ones.size, "epsilon": norm.attributes.get("epsilon", 1e-5)}
    inputs = tuple(found.names[name] for name in ("x", "weight", "bias"))
    return replace(last, operator="GroupNormalization", inputs=inputs, attributes=attributes)


_PATTERNS: Final[tuple[tuple[_Pattern, Rewriting], ...]] = (
    (("Mul", "x", ("Sigmoid", "x")), _activation("SiLU")),
    (("Mul", "x", ("HardSigmoid", "x")), _hard_swish),
    (("Mul", "x", ("Tanh", ("Softplus", "x"))), _activation("Mish")),
    *((pattern, _activation("Gelu")) for pattern in _GELUS),
    (("Add", ("MatMul", "x", "weight"), "bias"), _linear),
    (_GROUP_NORM, _group_norm),
)


def joined(program: Program) -> Program:
    """Return the program with the steps that make up one layer joined."""
    steps = _Steps(program)
    written: dict[int, OnnxStep] = {}
    inside: set[int] = set()
    # From the end: what is part of a larger pattern is not the root of a smaller one.
    for place in reversed(range(len(program.steps))):
        match = None if place in inside else _match(steps, program.steps[place])
        if match is not None:
            written[place], parts = match
            inside.update(parts)
    kept = (written.get(place, step) for place, step in enumerate(program.steps) if place not in inside)
    return replace(program, steps=tuple(kept))


def _match(steps: _Steps, last: OnnxStep) -> tuple[OnnxStep, tuple[int, ...]] | None:
    if last.operator not in _COMMUTE or len(last.outputs) != 1:
        return None
    for pattern, rewrite in _PATTERNS:
        for tries, found in enumerate(steps.find(pattern, last.outputs[0], _Found({}, ()))):
            step = rewrite(steps, last, found)
            if step is not None:
                return step, found.steps[1:]
            if tries >= _MAX_TRIES:
                break
    return None
