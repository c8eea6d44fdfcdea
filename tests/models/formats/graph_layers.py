"""What a graph calls, and the layers that it has: by what a file is read as is held against what `pack` makes."""

from __future__ import annotations

from typing import Any

from layerscope.models.safe_form.graph_spec import Graph


def called(graph: Graph) -> list[str]:
    """Return the names of the layers that are called, in order."""
    return [node.target for node in graph.nodes if node.operation == "layer"]


def layers(graph: Graph) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the layers with their arguments, `(3, 3)` for `3`."""
    return {
        module.name: (module.kind, {name: _short(value) for name, value in module.arguments.items()})
        for module in graph.modules
        if module.arguments is not None
    }


def _short(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(set(value)) == 1 else value
