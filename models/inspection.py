"""What is in a model file, offline: `layerscope inspect`. The same reader as `admit`'s."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from layerscope.models import file_kinds, formats, safe_form
from layerscope.models.architecture_option import architecture_file
from layerscope.models.formats.filling import in_place
from layerscope.models.formats.pickled import read_pickled
from layerscope.models.inspection_report import InspectedLayer, Inspection
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.schemas.errors import Refused
from layerscope.schemas.manifests import Refusal


def inspect(path: Path, architecture: str | None = None) -> Inspection:
    """Tell what a file is, what is in it, and whether it would be admitted; nothing in it is executed.

    Args:
        path: the file of a model, in any format.
        architecture: what a state dict belongs to: a name such as `resnet18`, or the path of a JSON file: blocks, or
            transformers' `config.json`.

    Raises:
        OSError: the file cannot be opened.
    """
    kind = file_kinds.sniff(path)
    found: dict[str, Any] = {"file": str(path), "size": path.stat().st_size, "format": kind}
    try:
        with in_place():
            found |= _read(path, kind, architecture)
    except Refused as refused:
        found["refusal"] = Refusal(code=refused.code, message=refused.message, hint=refused.hint)
    if kind in ("torch-zip", "torch-legacy"):
        found["foreign"] = _foreign(path)
    return Inspection(**found)


def _read(path: Path, kind: str, architecture: str | None) -> dict[str, Any]:
    if kind == "safetensors-layerscope":
        file = safe_form.read(path)
        shapes = {name: entry.shape for name, entry in file.header.tensors.items()}
        return _layers(file.graph, shapes) | {"architecture": "the safe form"}
    said = architecture_file(architecture) if architecture else None
    blocks = said if said and said.lstrip().startswith((b"[", b"{")) else None
    rebuilt = formats.rebuild(path, architecture=None if blocks else architecture, blocks=blocks)
    shapes = {name: tuple(tensor.shape) for name, tensor in rebuilt.tensors.items()}
    facts = {"architecture": rebuilt.architecture, "notes": rebuilt.notes, "training": dict(rebuilt.training)}
    return _layers(rebuilt.graph, shapes) | facts


def _layers(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    sizes = {
        one.name: math.prod(shapes[one.name])
        for one in graph.weights
        if one.same_as is None and one.kind == "parameter"
    }
    layers = [
        InspectedLayer(
            name=module.name,
            type=module.kind,
            parameters=sum(size for name, size in sizes.items() if name.rpartition(".")[0] == module.name),
        )
        for module in graph.modules
        if module.arguments is not None
    ]
    return {"layers": tuple(layers), "parameters": sum(sizes.values())}


def _foreign(path: Path) -> tuple[str, ...]:
    try:
        return read_pickled(path).foreign
    except Refused:
        return ()
