"""Follows the values of an ONNX file and writes the nodes and layers of the safe form: the state of one translation.

Every value that depends on the input is followed without memory, at two sizes of batch: see `probing`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from layerscope.models.formats.onnx_graph.probing import Prober, at_probe, probes_of
from layerscope.models.formats.onnx_graph.program import OnnxStep, Program
from layerscope.models.formats.onnx_graph.refusals import PACK_HINT, refused
from layerscope.models.formats.onnx_graph.tensors import Array
from layerscope.models.formats.onnx_graph.traced_values import (
    Dynamic,
    Loose,
    OnnxLayer,
    Static,
    Value,
    containers_of,
    in_graph,
    key_of,
    to_tensor,
)
from layerscope.models.safe_form.graph_nodes import MAX_WHOLE, Node, Operation, Ref
from layerscope.models.safe_form.graph_spec import MAX_NODES
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_AGAIN: Final = re.compile(r"(.+)_\d+")


class Translation:
    """The values so far, and what was written of the safe form; layers and loose tensors are still numbers there."""

    def __init__(self, program: Program) -> None:
        """Begin with the input and the tensors of a file."""
        self.opset = program.opset
        self.fixed_batch = program.shape[0]
        self.containers = containers_of(program)
        self.nodes: list[Node] = [Node("input")]
        self.layers: list[OnnxLayer] = []
        self.loose: list[Loose] = []
        self.notes: dict[str, None] = {}
        self._prober = Prober()
        self._input = Dynamic(Ref(0), probes_of(program))
        self._places: dict[Any, int] = {}
        self._counts: dict[str, int] = {}
        self._kept: list[Any] = []  # arrays are identified by where they lie, so none may be freed
        self.values: dict[str, Value] = {program.input: self._input}
        for name, array in program.tensors.items():
            self.values[name] = Static((array,) * self.probes, name)

    @property
    def probes(self) -> int:
        """At how many sizes each value is followed."""
        return len(self._input.probes)

    def functional(self, step: OnnxStep) -> bool:
        """Return whether a step was written as a function in the forward pass of a module that holds others."""
        return step.scope is not None and step.scope in self.containers

    # Inputs of a step ------------------------------------------------------------------------------------------------

    def given(self, step: OnnxStep, place: int) -> bool:
        """Return whether a step has this input at all."""
        return place < len(step.inputs) and step.inputs[place] != ""

    def value(self, step: OnnxStep, place: int) -> Value:
        """Return an input of a step.

        Raises:
            Refused: `bad-structure`, the step has no such input.
        """
        if not self.given(step, place):
            raise refused("bad-structure", f"{shown(step.operator)} {shown(step.name)} lacks an input.")
        return self.values[step.inputs[place]]

    def dynamic(self, step: OnnxStep, place: int = 0) -> Dynamic:
        """Return an input of a step as a node; constants become tensors of the model."""
        value = self.value(step, place)
        return self.tensor(value) if isinstance(value, Static) else value

    def static(self, step: OnnxStep, place: int) -> Static:
        """Return an input of a step that must not depend on the images.

        Raises:
            Refused: `computed-weight`.
        """
        value = self.value(step, place)
        if isinstance(value, Dynamic):
            raise Refused(
                "computed-weight",
                f"{shown(step.operator)} {shown(step.name)} computes from the images what should be a constant.",
                PACK_HINT,
            )
        return value

    def operand(self, value: Value) -> Any:
        """Return a value as an argument of arithmetic: a node, or the number itself where there is only one."""
        if isinstance(value, Dynamic):
            return value
        if value.arrays[0].size == 1 and value.arrays[0].ndim < 2 and value.constant:
            number = value.arrays[0].reshape(-1)[0].item()
            if math.isfinite(number) and abs(number) <= MAX_WHOLE:
                return number
        return self.tensor(value)

    def constant(self, step: OnnxStep, place: int) -> Array:
        """Return an input of a step that must be the same for every batch.

        Raises:
            Refused: `computed-weight`, `depends-on-batch`.
        """
        value = self.static(step, place)
        if not value.constant:
            raise self.varies(step)
        return value.arrays[0]

    def varies(self, step: OnnxStep) -> Refused:
        """Return the refusal of a step that would need the number of images as a constant."""
        return Refused(
            "depends-on-batch",
            f"{shown(step.operator)} {shown(step.name)} depends on the number or size of the images.",
            "Export it with images of one fixed size, and with x.flatten(1) where the model flattens",
        )

    # Output ----------------------------------------------------------------------------------------------------------

    def call(self, operation: Operation, target: str, *args: Any, **kwargs: Any) -> Dynamic:
        """Write a node that calls a function or method of the vocabulary; `Dynamic` arguments become references.

        Raises:
            Refused: `bad-shape`, what the file says cannot be computed; `bad-argument`, `too-many-nodes`.
        """
        probes = []
        for probe in range(self.probes):
            given = tuple(at_probe(value, probe) for value in args)
            named = {name: at_probe(value, probe) for name, value in kwargs.items()}
            probes.append(self._prober.call(operation, target, given, named))
        keywords = {name: in_graph(value) for name, value in kwargs.items()}
        return self._node(Node(operation, target, tuple(in_graph(value) for value in args), keywords), tuple(probes))

    def function(self, target: str, *args: Any, **kwargs: Any) -> Dynamic:
        """Write a node that calls a function of the vocabulary."""
        return self.call("function", target, *args, **kwargs)

    def layer(
        self,
        step: OnnxStep,
        kind: str,
        arguments: Mapping[str, Any],
        x: Dynamic,
        tensors: Mapping[str, Array] | None = None,
        *,
        weight: str = "",
    ) -> Dynamic:
        """Write a node that calls a layer of the vocabulary; one with the same tensors or name as before is that one.

        Raises:
            Refused: `unknown-module`, `bad-argument`, `shape-mismatch`, `bad-shape`, `too-many-nodes`.
        """
        given = tensors or {}
        self._kept.append(given)
        layer = OnnxLayer(
            kind,
            arguments,
            {name: to_tensor(array) for name, array in given.items()},
            weight,
            "" if step.scope is None or self.functional(step) else step.scope,
            step.scope or "",
            self._fallback(step),
        )
        where = tuple((array.ctypes.data, array.shape, array.strides, array.dtype.str) for array in given.values())
        known = self._known(layer, where)
        if known is None:
            known = len(self.layers)
            self.layers.append(layer)
            if key := key_of(layer, where):
                self._places[key] = known
        return self._node(Node("layer", f"layer {known}", (x.ref,)), self._prober.layer(layer, x.probes))

    def _known(self, layer: OnnxLayer, where: tuple[Any, ...]) -> int | None:
        known = self._places.get(key_of(layer, where))
        if known is None and (again := _AGAIN.fullmatch(layer.scope)):
            # The second call of a module, in the words of the exporter.
            known = self._places.get(key_of(replace(layer, scope=again[1]), where))
        return known

    def _fallback(self, step: OnnxStep) -> str:
        number = self._counts[step.operator] = self._counts.get(step.operator, -1) + 1
        return f"{step.operator}_{number}"

    def tensor(self, value: Static) -> Dynamic:
        """Write a node that gives a constant as a tensor of the model.

        Raises:
            Refused: `depends-on-batch`.
        """
        if not value.constant:
            raise Refused("depends-on-batch", "A tensor depends on the number or size of the images.", PACK_HINT)
        array = value.arrays[0]
        key = ("tensor", id(array))
        if key not in self._places:
            self._kept.append(array)
            self._places[key] = len(self.loose)
            self.loose.append(Loose(value.name, to_tensor(array)))
        number = self._places[key]
        kept = self.loose[number].tensor
        probe = torch.empty(kept.shape, dtype=torch.float32 if kept.is_floating_point() else kept.dtype, device="meta")
        return self._node(Node("tensor", f"tensor {number}"), (probe,) * self.probes)

    def _node(self, node: Node, probes: tuple[Any, ...]) -> Dynamic:
        if len(self.nodes) >= MAX_NODES - 1:
            raise refused("too-many-nodes", f"The model has more than {MAX_NODES:,} steps.")
        self.nodes.append(node)
        return Dynamic(Ref(len(self.nodes) - 1), probes)

    # Sizes -----------------------------------------------------------------------------------------------------------

    def sizes(self, step: OnnxStep, shapes: tuple[tuple[int, ...], ...], *, infer: bool = True) -> list[Any]:
        """Return a shape for a node: whole numbers, -1 for the one size that depends on the batch, else its product.

        Raises:
            Refused: `depends-on-batch`.
        """
        places = list(zip(*shapes, strict=True))
        varying = [place for place, sizes in enumerate(places) if len(set(sizes)) > 1]
        if infer and len(varying) == 1 and all(math.prod(shape) for shape in shapes):
            return [-1 if place in varying else sizes[0] for place, sizes in enumerate(places)]
        return [self._multiple(step, sizes) if place in varying else sizes[0] for place, sizes in enumerate(places)]

    def _multiple(self, step: OnnxStep, sizes: tuple[int, ...]) -> Dynamic:
        factor = sizes[1] - sizes[0]
        if sizes[0] != 2 * factor or any(size != sizes[0] for size in sizes[2:]) or not 0 < factor <= MAX_WHOLE:
            raise self.varies(step)
        if ("batch", 1) not in self._places:
            self._places["batch", 1] = self.call("method", "size", self._input, 0).ref.node
        if ("batch", factor) not in self._places:
            batch = Dynamic(Ref(self._places["batch", 1]), tuple(probe.shape[0] for probe in self._input.probes))
            self._places["batch", factor] = self.function("operator.mul", batch, factor).ref.node
        return Dynamic(Ref(self._places["batch", factor]), tuple(sizes))
