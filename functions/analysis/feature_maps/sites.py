"""Where to look in a model: each call of a convolution, and of a linear layer that has an activation behind it.

Of each that is its own output and the activation that this goes to next, if any. Read off the graph alone, so it makes no
difference whether an activation is a layer, a function or a method.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.models.safe_form.graph_module import refs
from layerscope.models.safe_form.graph_nodes import Node
from layerscope.models.safe_form.graph_spec import Graph


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


CONVOLUTIONS: Final = frozenset({"Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"})
ACTIVATIONS: Final = _names(
    """
    celu elu gelu hardshrink hardsigmoid hardswish hardtanh leakyrelu logsigmoid mish prelu relu relu6 selu sigmoid silu
    softplus softshrink softsign tanh tanhshrink threshold
    """
)
LINEAR: Final = frozenset({"Linear"})
NONNEGATIVE: Final = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softplus"})
# What leaves channels as they are, and one map a channel.
_PASSING: Final = _names(
    """
    adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d adaptivemaxpool1d adaptivemaxpool2d alphadropout avgpool1d
    avgpool2d avgpool3d batchnorm batchnorm1d batchnorm2d batchnorm3d clone contiguous detach dropout dropout1d
    dropout2d dropout3d featurealphadropout float groupnorm identity instancenorm instancenorm1d instancenorm2d
    instancenorm3d localresponsenorm lppool2d maxpool1d maxpool2d maxpool3d
    """
)
_SUMS: Final = frozenset({"add"})


@dataclass(frozen=True, slots=True)
class Site:
    """One call of one convolution or linear layer.

    `node` is where its output is in the graph, `behind` where its activation is: the same where it has none. What a linear
    layer puts out has its channels on the last axis, and whatever positions it is given: none, the tokens of a
    transformer, or places on the image.
    """

    layer: str
    call: int
    type: str
    channels: int
    node: int
    behind: int
    activation: str | None = None
    activation_layer: str | None = None
    through_sum: bool = False

    @property
    def is_convolution(self) -> bool:
        """Tell whether it is one."""
        return self.type in CONVOLUTIONS

    def has_maps(self, shape: tuple[int, ...], images: int) -> bool:
        """Tell whether an output of this shape has a row an image, and a map a channel."""
        if not self.is_convolution:
            return len(shape) >= 2 and (shape[0], shape[-1]) == (images, self.channels)
        return len(shape) == int(self.type[-2]) + 2 and shape[:2] == (images, self.channels)

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a map, by that of the whole output; without positions, nothing."""
        return tuple(shape[2:] if self.is_convolution else shape[1:-1])


def sites(graph: Graph) -> tuple[Site, ...]:
    """Return every call of every convolution, and of every linear layer with an activation, in the order of the forward pass."""
    layers = _Layers(graph)
    users = _users(graph.nodes)
    calls: Counter[str] = Counter()
    found = []
    for index, node in enumerate(graph.nodes):
        if node.operation != "layer" or layers.kind(node) not in CONVOLUTIONS | LINEAR:
            continue
        name = layers.first_name(node)
        call = calls[name]
        calls[name] += 1
        behind, through_sum = _activation_behind(index, graph.nodes, users, layers)
        activation = graph.nodes[behind] if behind != index else None
        if activation is None and layers.kind(node) in LINEAR:
            continue
        found.append(
            Site(
                layer=name,
                call=call,
                type=layers.kind(node),
                channels=layers.channels(node),
                node=index,
                behind=behind,
                activation=layers.kind(activation) if activation else None,
                activation_layer=activation.target if activation and activation.operation == "layer" else None,
                through_sum=through_sum,
            )
        )
    return tuple(found)


def plain_name(kind: str) -> str:
    """Return one name for a layer, function and method that do the same: `ReLU`, `functional.relu`, `relu_`."""
    return kind.rpartition(".")[2].replace("_", "").lower()


class _Layers:
    """What the nodes call."""

    def __init__(self, graph: Graph) -> None:
        self._modules = {module.name: module for module in graph.modules}

    def first_name(self, node: Node) -> str:
        """Return the name by which `named_modules()` knows the layer of a node: of a shared one, the first."""
        return self._modules[node.target].same_as or node.target

    def kind(self, node: Node) -> str:
        return self._modules[self.first_name(node)].kind if node.operation == "layer" else node.target

    def channels(self, node: Node) -> int:
        arguments = self._modules[self.first_name(node)].arguments or {}
        return int(arguments["out_features" if self.kind(node) in LINEAR else "out_channels"])


def _users(nodes: Sequence[Node]) -> Mapping[int, list[int]]:
    """Return which nodes take the value of each."""
    users: defaultdict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for used in set(refs((*node.args, *node.kwargs.values()))):
            users[used].append(index)
    return users


def _activation_behind(
    start: int, nodes: Sequence[Node], users: Mapping[int, list[int]], layers: _Layers
) -> tuple[int, bool]:
    """Return the first activation in the order of the graph that this output comes to, and whether by way of a sum.

    Without one, the output itself.
    """
    waiting = [(user, False) for user in users.get(start, ())]
    heapq.heapify(waiting)
    seen: set[int] = set()
    while waiting:
        index, through_sum = heapq.heappop(waiting)
        node = nodes[index]
        if index in seen or node.operation not in ("layer", "function", "method"):
            continue
        seen.add(index)
        name = plain_name(layers.kind(node))
        if name in ACTIVATIONS:
            return index, through_sum
        if name in _PASSING or name in _SUMS:
            for user in users.get(index, ()):
                heapq.heappush(waiting, (user, through_sum or name in _SUMS))
    return start, False
