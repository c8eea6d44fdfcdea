"""What is written on a step of the diagram: the layer with its sizes, or the function's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerscope.models.safe_form.graph_nodes import Node
from layerscope.models.safe_form.graph_spec import Graph, Module


def labels(graph: Graph) -> list[str]:
    """Return a short text for each node, for example `Conv2d 3→64 7×7 /2`."""
    layers = {one.name: of_layer(one) for one in graph.modules if one.arguments is not None}
    return [_of_node(node, layers) for node in graph.nodes]


def _of_node(node: Node, layers: Mapping[str, str]) -> str:
    name = node.target.rpartition(".")[2].strip("_") or "input"
    return layers[node.target] if node.operation == "layer" else {"getitem": "index"}.get(name, name)


def of_layer(module: Module) -> str:
    """Return a short text for a layer."""
    found = module.arguments or {}
    return " ".join([module.kind, *[part for part in (_channels(found), _window(found), _groups(found)) if part]])


def _channels(found: Mapping[str, Any]) -> str:
    pairs = (("in_channels", "out_channels"), ("in_features", "out_features"), ("input_size", "hidden_size"))
    return next((f"{found[begin]}→{found[end]}" for begin, end in pairs if begin in found), "")


def _window(found: Mapping[str, Any]) -> str:
    size, stride = _axes(found.get("kernel_size")), _axes(found.get("stride"))
    return (f"{size}" + (f" /{stride.partition('×')[0]}" if stride not in ("", "1", "1×1") else "")) if size else ""


def _axes(value: Any) -> str:
    if isinstance(value, list):
        return "×".join(map(str, value))
    return "" if value is None else f"{value}×{value}"


def _groups(found: Mapping[str, Any]) -> str:
    groups = found.get("groups", 1)
    return "" if groups == 1 else "depthwise" if groups == found.get("in_channels") else f"{groups} groups"
