"""In-place steps, rewritten: each makes a value of its own, and what used the changed value uses that.

A value that crosses a cut is a copy on the far side. Where a step changes it in place, whoever else holds it would no
longer see the change: the hardswish of MobileNetV3 is such a step. After the functionalization of PyTorch's compiler
(https://docs.pytorch.org/docs/stable/torch.compiler_faq.html), on the names of the safe form instead of dispatched calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from layerscope.models.safe_form.graph_module import last_uses, refs
from layerscope.models.safe_form.graph_nodes import Node, Ref
from layerscope.models.safe_form.graph_spec import Graph, Module

INPLACE_POSITION: Final[Mapping[str, int]] = {
    "functional.celu": 2,
    "functional.elu": 2,
    "functional.hardsigmoid": 1,
    "functional.hardswish": 1,
    "functional.hardtanh": 3,
    "functional.leaky_relu": 2,
    "functional.mish": 1,
    "functional.relu": 1,
    "functional.relu6": 1,
    "functional.selu": 1,
    "functional.silu": 1,
    "functional.threshold": 3,
}
"""Where the argument `inplace` of a function stands."""

# What surely returns memory of its own. Whatever is not here may return a view of what it was given, or that itself.
_FRESH_CALLS: Final = """
    abs add addmm amax amin argmax bmm cat clamp clamp_max clamp_min clone concat cos cumsum div exp flip float_power
    log log_softmax logsumexp matmul max maximum mean min minimum mm mul neg norm ones_like pow relu roll rsqrt selu
    sigmoid sin softmax sqrt square stack std sub sum tanh tile var var_mean where zeros_like eq floordiv ge gt le lt mod
    ne truediv adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d batch_norm
    celu conv1d conv2d conv3d conv_transpose1d conv_transpose2d elu gelu glu group_norm hardsigmoid hardswish hardtanh
    instance_norm layer_norm leaky_relu linear local_response_norm logsigmoid lp_pool2d max_pool1d max_pool2d max_pool3d
    mish prelu relu6 rms_norm scaled_dot_product_attention silu softmin softplus softsign threshold dim index_select
    new_ones new_zeros numel repeat repeat_interleave size shape ndim dtype device
"""
_VIEWING: Final = """
    AlphaDropout ChannelShuffle CircularPad2d ConstantPad2d Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout
    Flatten Identity PixelShuffle PixelUnshuffle ReflectionPad1d ReflectionPad2d ReplicationPad2d Unflatten Upsample
    ZeroPad1d ZeroPad2d
"""
_FRESH: Final = frozenset(_FRESH_CALLS.split())
_VIEWING_LAYERS: Final = frozenset(_VIEWING.split())


def functional(graph: Graph) -> Graph:
    """Return a graph that computes the same, without steps that change a value in place wherever that is safe.

    It is not where another view of the changed memory is used later; such a step stays, see `changed`.
    """
    kept: frozenset[str] = frozenset()
    while True:  # a layer that is called several times is changed for all of its calls, or for none
        rewriting = _Rewriting(graph, kept)
        nodes = tuple(rewriting.rewritten(index, node) for index, node in enumerate(graph.nodes))
        if rewriting.refused <= kept:
            break
        kept |= rewriting.refused
    modules = tuple(
        replace(module, arguments={**module.arguments, "inplace": False})
        if module.arguments and module.arguments.get("inplace") and module.name not in kept
        else module
        for module in graph.modules
    )
    return replace(graph, modules=modules, nodes=nodes)


def changed(graph: Graph) -> dict[int, int]:
    """Return for each step that changes its first argument in place which value that is."""
    layers = _Layers.of(graph)
    found = {}
    for index, node in enumerate(graph.nodes):
        if layers.in_place(node) and isinstance(node.args[0], Ref):
            found[index] = node.args[0].node
    return found


@dataclass(slots=True)
class Memory:
    """Which values may share memory, found in the order of the steps (disjoint sets, Tarjan 1975)."""

    above: list[int]

    def of(self, value: int) -> int:
        """Return the first value of those that may share memory with this one."""
        while self.above[value] != value:
            self.above[value] = self.above[self.above[value]]
            value = self.above[value]
        return value

    def join(self, one: int, other: int) -> None:
        """Say that two values may share memory."""
        first, second = sorted((self.of(one), self.of(other)))
        self.above[second] = first


def memory(graph: Graph) -> Memory:
    """Return which values of a graph may share memory."""
    found, layers = Memory(list(range(len(graph.nodes)))), _Layers.of(graph)
    for index, node in enumerate(graph.nodes):
        layers.join(found, index, node)
    return found


@dataclass(frozen=True, slots=True)
class _Layers:
    """What the layers of a graph are, by name: what tells of a step whether it works in place, or returns a view."""

    modules: Mapping[str, Module]

    @classmethod
    def of(cls, graph: Graph) -> Self:
        return cls({module.name: module for module in graph.modules})

    def in_place(self, node: Node) -> bool:
        """Tell whether a step changes its first argument."""
        match node.operation:
            case "method":
                return node.target.endswith("_")
            case "function":
                position = INPLACE_POSITION.get(node.target, len(node.args))
                return bool(node.kwargs.get("inplace", node.args[position] if position < len(node.args) else False))
            case "layer":
                return bool((self.modules[node.target].arguments or {}).get("inplace"))
        return False

    def join(self, found: Memory, index: int, node: Node) -> None:
        """Note that a step's value may share memory with what it was given, where it may."""
        if self._may_share(node):
            for used in refs((*node.args, *node.kwargs.values())):
                found.join(index, used)

    def _may_share(self, node: Node) -> bool:
        if self.in_place(node):
            return True
        if node.operation == "layer":
            return self.modules[node.target].kind in _VIEWING_LAYERS
        return node.operation in ("function", "method", "attribute") and node.target.rpartition(".")[2] not in _FRESH


class _Rewriting:
    """One pass over the steps, in their order; `refused` are the layers that must go on working in place."""

    def __init__(self, graph: Graph, kept: frozenset[str]) -> None:
        self.refused: frozenset[str] = frozenset()
        self._nodes = graph.nodes
        self._layers = _Layers.of(graph)
        self._kept = kept
        self._memory = Memory(list(range(len(graph.nodes))))
        self._now: dict[int, int] = {}
        """For a value that was changed: the one that holds what it is now."""
        self._last = last_uses(graph)

    def rewritten(self, index: int, node: Node) -> Node:
        """Return a step as it is in the new graph."""
        node = replace(
            node,
            args=tuple(_renamed(value, self._now) for value in node.args),
            kwargs={keyword: _renamed(value, self._now) for keyword, value in node.kwargs.items()},
        )
        if self._layers.in_place(node):
            if self._is_safe(index, node):
                self._take_over(index, node)
                return _plain(node)
            if node.operation == "layer":
                self.refused |= {node.target}
        self._layers.join(self._memory, index, node)
        return node

    def _take_over(self, index: int, node: Node) -> None:
        changed = node.args[0].node
        for before, now in self._now.items():
            if now == changed:
                self._now[before] = index
        self._now[changed] = index
        self._last[index] = max(self._last[index], self._last[changed])

    def _is_safe(self, index: int, node: Node) -> bool:
        """Tell whether nobody sees the change but through the value itself."""
        if not node.args or not isinstance(node.args[0], Ref) or node.target in self._kept:
            return False
        changed = node.args[0].node
        if self._nodes[changed].operation == "tensor":
            return False
        shared = self._memory.of(changed)
        return not any(
            self._last[other] > index and self._memory.of(other) == shared for other in range(index) if other != changed
        )


def _plain(node: Node) -> Node:
    if node.operation == "method":
        return replace(node, target=node.target.removesuffix("_"))
    if node.operation == "function":
        position = INPLACE_POSITION[node.target]
        args = tuple(False if place == position else value for place, value in enumerate(node.args))
        return replace(node, args=args, kwargs={k: v for k, v in node.kwargs.items() if k != "inplace"})
    return node


def _renamed(value: Any, now: Mapping[int, int]) -> Any:
    match value:
        case Ref(node):
            return Ref(now.get(node, node))
        case slice(start=start, stop=stop, step=step):
            return slice(_renamed(start, now), _renamed(stop, now), _renamed(step, now))
        case tuple():
            return tuple(_renamed(item, now) for item in value)
        case list():
            return [_renamed(item, now) for item in value]
    return value
