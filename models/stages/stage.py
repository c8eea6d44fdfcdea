"""A part of a model, from one cut to another: the layers and tensors that it needs, and no others, and how it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from layerscope.models.safe_form.graph_module import SafeModel, assemble, refs
from layerscope.models.safe_form.graph_nodes import Node
from layerscope.models.safe_form.graph_spec import Graph, Module, Weight
from layerscope.models.stages.functional import changed
from layerscope.models.stages.liveness import Cut

START = Cut(0, (0,))
"""Before the first step: what is carried is the input."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The steps of a functional graph between two cuts, as plain data; `end` None: up to the model's output."""

    graph: Graph
    """Its layers and tensors are the stage's own, its nodes the whole model's."""
    steps: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stored: Mapping[str, str]
    """For each tensor of the stage, the name under which the file holds it."""


def stage_of(graph: Graph, start: Cut = START, end: Cut | None = None) -> Stage:
    """Return the part of a functional graph from one cut to another, with what it needs of the layers and tensors."""
    return Divisible(graph).stage(start, end)


class Divisible:
    """A functional graph whose modules and tensors can be looked up by name, so that many stages are soon made of it."""

    def __init__(self, graph: Graph) -> None:
        """Look at every module and tensor once."""
        self._graph = graph
        self._changing = tuple(changed(graph))
        self._modules = {module.name: (place, module) for place, module in enumerate(graph.modules)}
        self._same = {module.name: module.same_as for module in graph.modules if module.same_as is not None}
        self._weights: dict[str, list[tuple[int, Weight]]] = {}
        """By the module or tensor that is called or used: what is stored for it."""
        for place, weight in enumerate(graph.weights):
            for name in (weight.name, *_above(weight.name)):
                self._weights.setdefault(name, []).append((place, weight))

    def stage(self, start: Cut, end: Cut | None) -> Stage:
        """Return the part from one cut to another."""
        nodes = self._graph.nodes
        outputs = end.values if end else (nodes[-1].args[0].node,)
        last = end.after if end else len(nodes) - 2
        changing = [step for step in self._changing if start.after < step <= last]
        steps = _needed(nodes, (*outputs, *changing), frozenset(start.values))
        owners = [nodes[step] for step in steps if nodes[step].operation in ("layer", "tensor")]
        weights, stored = self._tensors(owners)
        graph = replace(self._graph, modules=self._tree(owners), weights=weights)
        return Stage(graph, steps, start.values, outputs, stored)

    def _tree(self, nodes: Iterable[Node]) -> tuple[Module, ...]:
        """Return the modules that are called or hold a used tensor, those above them, and those they are the same as."""
        kept: dict[int, Module] = {}
        waiting = ["", *(node.target for node in nodes)]
        while waiting:
            name = waiting.pop()
            if name in self._modules:
                place, module = self._modules[name]
                if place in kept:
                    continue
                kept[place] = module
            waiting += _above(name)
            if (true := self._true_name(name)) != name:
                waiting.append(true)
        return tuple(module for _, module in sorted(kept.items(), key=lambda one: one[0]))

    def _tensors(self, nodes: Iterable[Node]) -> tuple[tuple[Weight, ...], dict[str, str]]:
        """Return the tensors of the layers that are called, and those that are used by name, with where they are stored."""
        used = {self._true_name(node.target) for node in nodes}
        kept = dict(one for name in used for one in self._weights.get(name, ()))
        first: dict[str, str] = {}  # what is tied names one that may belong to another stage
        weights, stored = [], {}
        for _, weight in sorted(kept.items(), key=lambda one: one[0]):
            origin = weight.same_as or weight.name
            holder = first.setdefault(origin, weight.name)
            weights.append(replace(weight, same_as=None if holder == weight.name else holder))
            stored[weight.name] = origin
        return tuple(weights), stored

    def _true_name(self, name: str) -> str:
        """Return the name under which a module that occurs several times, or what is in it, came first."""
        for above in (name, *_above(name)):
            if (other := self._same.get(above)) is not None:
                return self._true_name(other + name.removeprefix(above))
        return name


def _needed(nodes: tuple[Node, ...], wanted: Iterable[int], given: frozenset[int]) -> tuple[int, ...]:
    found: set[int] = set()
    waiting = [one for one in wanted if one not in given]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            node = nodes[index]
            waiting += [one for one in refs((*node.args, *node.kwargs.values())) if one not in given]
    return tuple(sorted(found))


def _above(name: str) -> list[str]:
    """Return the names of what something is in, the nearest first; not the model itself."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


class StageModel:
    """A stage that can run: built like the model itself, of its own tensors only."""

    def __init__(self, stage: Stage, tensor_of: Callable[[str], Tensor]) -> None:
        """Build the stage; `tensor_of` gives a tensor by the name that the file has for it.

        Raises:
            Refused: as of `assemble`.
        """
        self.stage = stage
        self._model: SafeModel = assemble(stage.graph, lambda name: tensor_of(stage.stored[name]))
        self._releases = _releases(stage)

    def __call__(self, values: tuple[Any, ...], see: Callable[[int, Any], None] | None = None) -> tuple[Any, ...]:
        """Return the stage's outputs for its inputs, each in the order of its cut; `see` is given every step's value."""
        held: dict[int, Any] = dict(zip(self.stage.inputs, values, strict=True))
        for step in self.stage.steps:
            held[step] = self._model.step(self._model.safe_graph.nodes[step], held)
            if see is not None:
                see(step, held[step])
            for used in self._releases.get(step, ()):
                del held[used]
        return tuple(held[one] for one in self.stage.outputs)


def _releases(stage: Stage) -> dict[int, list[int]]:
    """Return for each step the values that the stage does not need after it."""
    last = dict.fromkeys((*stage.inputs, *stage.steps), -1)
    for step in stage.steps:
        node = stage.graph.nodes[step]
        last[step] = step
        for used in refs((*node.args, *node.kwargs.values())):
            last[used] = step
    found: dict[int, list[int]] = {}
    for value, step in last.items():
        if value not in stage.outputs and step >= 0:
            found.setdefault(step, []).append(value)
    return found


def between(graph: Graph, places: Sequence[Cut], tensor_of: Callable[[str], Tensor]) -> list[StageModel]:
    """Return the stages of a functional graph from its input through all of these cuts to its output."""
    bounds = zip([START, *places], [*places, None], strict=True)
    divisible = Divisible(graph)
    return [StageModel(divisible.stage(start, end), tensor_of) for start, end in bounds]


def tensors(model: SafeModel) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model, tied ones under each of their names."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
