"""The architecture as JSON: a list of layers, as it may be uploaded with a state_dict, where one feeds the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from layerscope.functions.summary.arguments import readable
from layerscope.models.safe_form.graph_nodes import Node, Ref
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.schemas.digests import canonical_json

Block = dict[str, Any]


def _relu(node: Node) -> Block | None:
    return {"type": "ReLU"} if len(node.args) == 1 else None


def _flatten(node: Node) -> Block | None:
    begin = node.args[1] if len(node.args) == 2 else node.kwargs.get("start_dim")
    return {"type": "Flatten"} if begin == 1 and node.kwargs.get("end_dim", -1) == -1 else None


_FUNCTIONS: Final[Mapping[str, Callable[[Node], Block | None]]] = {
    "functional.relu": _relu,
    "torch.relu": _relu,
    "relu": _relu,
    "torch.flatten": _flatten,
    "flatten": _flatten,
}


def architecture(graph: Graph) -> tuple[Literal["blocks", "graph"], str]:
    """Return the list of layers as JSON, or the graph where the model is no chain of them."""
    blocks = chain(graph)
    if blocks is None:
        return "graph", graph.to_json().decode()
    return "blocks", canonical_json(blocks).decode()


def chain(graph: Graph) -> list[Block] | None:
    """Return the layers of a model in which each feeds the next, in the form `{"type": "Conv2d", "in_channels": 1, …}`.

    None where it is not such a chain, where a layer is called twice, or where one is never called.
    """
    kinds = {one.name: one for one in graph.modules if one.arguments is not None}
    called = [node.target for node in graph.nodes if node.operation == "layer"]
    tied = any(one.same_as for one in graph.modules) or any(one.same_as for one in graph.weights)
    if tied or sorted(called) != sorted(kinds):
        return None
    blocks: list[Block] = []
    for index, node in enumerate(graph.nodes[1:-1]):
        if node.args[:1] != (Ref(index),):
            return None
        block = _FUNCTIONS[node.target](node) if node.operation != "layer" and node.target in _FUNCTIONS else None
        if node.operation == "layer" and len(node.args) == 1 and not node.kwargs:
            block = {
                "type": kinds[node.target].kind,
                **readable(kinds[node.target].kind, kinds[node.target].arguments or {}),
            }
        if block is None:
            return None
        blocks.append(block)
    return blocks if graph.nodes[-1].args == (Ref(len(graph.nodes) - 2),) else None
