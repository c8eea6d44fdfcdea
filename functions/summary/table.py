"""The layer table and its totals: what a forward pass calls, in order, and what each call costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from torch import Tensor, nn

from layerscope.functions.summary.arguments import readable
from layerscope.functions.summary.shapes import Shape
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.costs import CallCost, Costs
from layerscope.models.safe_form.graph_nodes import Node, Ref
from layerscope.schemas.products.summary import SummaryLayer, TensorFigures

_CALLS: Final = frozenset({"function", "method", "attribute"})


def totals(model: SafeModel) -> dict[str, Any]:
    """Return the sums over the model's tensors, each counted once, however many names it has."""
    parameters = list(model.parameters())
    every = Counter(id(one) for _, one in model.named_parameters(remove_duplicate=False))
    tensors = [*parameters, *model.buffers()]
    return {
        "parameters": sum(one.numel() for one in parameters),
        "trainable": sum(one.numel() for one in parameters if one.requires_grad),
        "frozen": sum(one.numel() for one in parameters if not one.requires_grad),
        "shared": sum(one.numel() for one in parameters if every[id(one)] > 1),
        "buffers": sum(one.numel() for one in model.buffers()),
        "tensor_bytes": sum(one.numel() * one.element_size() for one in tensors),
    }


def rows(model: SafeModel, costs: Costs | None, shapes: Mapping[int, Shape]) -> Iterator[SummaryLayer]:
    """Yield a row for each call of a layer, each parameter that a container holds, and each function that multiplies.

    Args:
        costs: of a forward pass; None where it is not known what the model is given.
        shapes: of the values of the graph's nodes.
    """
    table = _Table(model, shapes, known=costs is not None)
    graph = model.safe_graph
    layers = iter([(index, node) for index, node in enumerate(graph.nodes) if node.operation == "layer"])
    for call in costs.calls if costs else ():
        if call.kind in _CALLS:
            yield _function(call)
        elif call.kind == "tensor":
            yield table.parameter(call.name)
        else:
            yield table.layer(*next(layers), call.multiply_adds)
    if costs is None:
        for index, node in enumerate(graph.nodes):
            if node.operation == "layer":
                yield table.layer(index, node, None)
    yield from table.rest()


def _function(call: CallCost) -> SummaryLayer:
    return SummaryLayer(
        name=call.name,
        type="function",
        call=0,
        arguments={},
        input=None,
        output=call.shape[1:] if call.shape else None,
        parameters=0,
        multiply_adds=call.multiply_adds,
        learns=None,
    )


class _Table:
    """Makes rows, and remembers which parameters are counted and which layers were called."""

    def __init__(self, model: SafeModel, shapes: Mapping[int, Shape], *, known: bool) -> None:
        self._model = model
        self._shapes = shapes
        self._none = 0 if known else None
        self._modules = {one.name: one for one in model.safe_graph.modules}
        self._calls: Counter[str] = Counter()
        self._counted: set[int] = set()

    def layer(self, index: int, node: Node, multiply_adds: int | None) -> SummaryLayer:
        """Return the row of one call of a layer."""
        first = node.args[0] if node.args else None
        shape = self._shapes.get(first.node) if isinstance(first, Ref) else None
        row = self._row(node.target, self._calls[node.target], shape, self._shapes.get(index), multiply_adds)
        self._calls[node.target] += 1
        return row

    def parameter(self, name: str) -> SummaryLayer:
        """Return the row of a parameter that a container holds."""
        owner, _, leaf = name.rpartition(".")
        value = getattr(self._model.get_submodule(owner), leaf)
        return SummaryLayer(
            name=name,
            type="Parameter",
            call=0,
            arguments={},
            input=None,
            output=tuple(value.shape),
            parameters=self._new(value),
            multiply_adds=self._none,
            learns="trainable" if value.requires_grad else "frozen",
        )

    def rest(self) -> Iterator[SummaryLayer]:
        """Yield rows for what was never called, and for parameters that no layer has."""
        for one in self._modules.values():
            if one.arguments is not None and not self._calls[one.name]:
                yield self._row(one.name, None, None, None, self._none)
        for name, value in self._model.named_parameters():
            if id(value) not in self._counted:
                yield self.parameter(name)

    def _row(
        self, name: str, call: int | None, given: Shape | None, made: Shape | None, multiply_adds: int | None
    ) -> SummaryLayer:
        module, spec = self._model.get_submodule(name), self._modules[name]
        own = {leaf: value for leaf, value in module.named_parameters() if id(value) not in self._counted}
        return SummaryLayer(
            name=name,
            type=spec.kind,
            call=call,
            arguments=readable(spec.kind, spec.arguments or {}),
            input=given,
            output=made,
            parameters=sum(self._new(one) for one in module.parameters()),
            multiply_adds=multiply_adds,
            learns=_learns(module),
            weights=tuple(figures(leaf, value) for leaf, value in own.items()),
        )

    def _new(self, parameter: nn.Parameter) -> int:
        if id(parameter) in self._counted:
            return 0
        self._counted.add(id(parameter))
        return parameter.numel()


def figures(name: str, values: Tensor) -> TensorFigures:
    """Return what there is to tell of the values of a parameter."""
    numbers = values.detach().double().flatten()
    finite = numbers[numbers.isfinite()]
    known = (finite.mean(), finite.std(correction=0), finite.min(), finite.max()) if len(finite) else (None,) * 4
    mean, deviation, lowest, highest = (None if one is None else float(f"{float(one):.6g}") for one in known)
    return TensorFigures(
        name=name,
        shape=tuple(values.shape),
        mean=mean,
        deviation=deviation,
        lowest=lowest,
        highest=highest,
        zeros=float((finite == 0).sum()) / max(len(numbers), 1),
        non_finite=len(numbers) - len(finite),
    )


def _learns(module: nn.Module) -> Literal["trainable", "frozen", "partly"] | None:
    kinds = {one.requires_grad for one in module.parameters()}
    if not kinds:
        return None
    return "partly" if len(kinds) == 2 else "trainable" if kinds == {True} else "frozen"
