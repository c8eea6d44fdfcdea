"""What is in a model file, offline: `layerscope inspect`. The same reader as `admit`'s."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from layerscope.models import file_kinds, formats, safe_form
from layerscope.models.architecture_option import architecture_file
from layerscope.models.formats.filling import in_place
from layerscope.models.formats.pickled import read_pickled
from layerscope.models.formats.proposed_blocks import proposed
from layerscope.models.formats.state_dicts import unwrap
from layerscope.models.image_option import image_shape
from layerscope.models.inspection_report import InspectedLayer, Inspection
from layerscope.models.safe_form import trial
from layerscope.models.safe_form.graph_module import SafeModel, as_built, assemble, without_values
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.schemas.errors import Refused
from layerscope.schemas.manifests import Refusal


def inspect(path: Path, architecture: str | None = None, images: str | None = None) -> Inspection:
    """Tell what a file is, what is in it, and whether it would be admitted; nothing in it is executed.

    Args:
        path: the file of a model, in any format.
        architecture: what a state dict belongs to: a name such as `resnet18`, or the path of a JSON file: blocks, or
            transformers' `config.json`.
        images: the shape of those that the model takes, as `3x224x224`, where nothing else tells.

    Raises:
        OSError: the file cannot be opened.
    """
    kind = file_kinds.sniff(path)
    found: dict[str, Any] = {"file": str(path), "size": path.stat().st_size, "format": kind}
    try:
        with in_place():
            facts, run = _read(path, kind, architecture, images)
            found |= facts
            if (note := run().note) is not None:
                found["notes"] = (*found.get("notes", ()), note)
    except Refused as refused:
        found["refusal"] = Refusal(code=refused.code, message=refused.message, hint=refused.hint)
        if refused.code == "unknown-architecture" and kind in ("torch-zip", "torch-legacy"):
            found["blocks"] = _begun(path)
    if kind in ("torch-zip", "torch-legacy"):
        found["foreign"] = _foreign(path)
    return Inspection(**found)


def _read(
    path: Path, kind: str, architecture: str | None, images: str | None
) -> tuple[dict[str, Any], Callable[[], trial.Ran]]:
    """Return what is in a file, and what runs its model."""
    said = None if images is None else image_shape(images)
    if kind == "safetensors-layerscope":
        file = safe_form.read(path)
        shapes = {name: entry.shape for name, entry in file.header.tensors.items()}
        facts = _layers(file.graph, shapes) | {"architecture": "the safe form"}
        outline = safe_form.outline(file)
        return facts, lambda: _run(outline, lambda: safe_form.build(file), said)
    given = architecture_file(architecture) if architecture else None
    blocks = given if given and given.lstrip().startswith((b"[", b"{")) else None
    rebuilt = formats.rebuild(path, architecture=None if blocks else architecture, blocks=blocks)
    graph, tensors = rebuilt.graph, rebuilt.tensors
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    facts = {"architecture": rebuilt.architecture, "notes": rebuilt.notes, "training": dict(rebuilt.training)}
    return _layers(graph, shapes) | facts, lambda: _run(
        assemble(graph, lambda name: without_values(tensors[name])),
        lambda: assemble(graph, lambda name: as_built(tensors[name])),
        said,
        rebuilt.images,
    )


def _run(
    outline: SafeModel,
    computing: Callable[[], SafeModel],
    said: trial.Shape | None,
    own: trial.Shape | None = None,
) -> trial.Ran:
    """Run a model as `admit` does; of several that differ in values alone, as those of a training do, the first."""
    likely = tuple(one for one in (said or own,) if one is not None)
    tensors = {**dict(outline.named_parameters()), **dict(outline.named_buffers())}
    sizes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items())
    try:
        return _without_values(_Outline(outline.safe_graph.to_json(), sizes, outline), likely, said is None)
    except _ValuesDecideError:
        return trial.run(outline, computing, likely, guess=said is None)


class _ValuesDecideError(Exception):
    """Sizes depend on values, so that each model has to be run itself."""


@dataclass(frozen=True)
class _Outline:
    graph: bytes
    sizes: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    model: SafeModel = field(compare=False)


@functools.lru_cache(maxsize=64)
def _without_values(outline: _Outline, likely: tuple[trial.Shape, ...], guess: bool) -> trial.Ran:
    def computing() -> SafeModel:
        raise _ValuesDecideError

    return trial.run(outline.model, computing, likely, guess=guess)


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


def _begun(path: Path) -> tuple[dict[str, Any], ...]:
    """Return a list of blocks for its user to complete."""
    try:
        with in_place():
            return proposed(unwrap(read_pickled(path).root))
    except Refused:
        return ()


def _foreign(path: Path) -> tuple[str, ...]:
    try:
        return read_pickled(path).foreign
    except Refused:
        return ()
