"""Writes a table of graphs, as `models/formats/graph_tables/stored.py` reads it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from layerscope.models import exporting, safe_form
from layerscope.models.formats.graph_tables.stored import INDEX, TENSORS, Free, Index, Place, path
from layerscope.models.safe_form.graph_module import assemble
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.safe_form.tracing import trace
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import LayerscopeError
from tests.tables.graph_weights import weights

EQUAL: Final = 1e-5
MOST_CONSTANT: Final = 8_000_000
"""Bytes of a tensor that a state dict leaves out."""
WITHOUT_EFFECT: Final[Mapping[str, tuple[str, ...]]] = {"Dropout": ("p",), "BatchNorm": ("momentum",)}
"""Arguments of layers that change nothing in eval mode, by how their classes' names begin; `inplace` never does."""


@dataclass(frozen=True, slots=True)
class Made:
    """An architecture as it is stored."""

    name: str
    family: str
    graph: bytes
    constants: Mapping[str, Tensor]
    digest: str
    free: Free
    config: Mapping[str, Any] = field(default_factory=dict)


def traced(
    model: nn.Module, shape: tuple[int, int, int], *, may_export: bool = True
) -> tuple[Graph, dict[str, Tensor]]:
    """Return the graph of a model and its tensors, by torch.fx or by torch.export."""
    try:
        return trace(model)
    except LayerscopeError:
        file = safe_form.read(exporting.pack(model, shape))
        return file.graph, {one.name: safe_form.tensor(file, one.same_as or one.name) for one in file.graph.weights}


def check(other: nn.Module, graph: Graph, kept: Mapping[str, Tensor], shape: Sequence[int]) -> None:
    """Run a model of other weights beside a graph with these weights and what is kept; raise ValueError where they differ.

    What a model has worked out of its weights and keeps, as LeViT does its biases, is no constant of the architecture. Many
    weights are zeros in every new model, so all are drawn anew.
    """
    images, state = torch.randn(2, *shape), other.state_dict()
    drawn = weights({name: tensor.shape for name, tensor in state.items() if tensor.is_floating_point()})
    with torch.no_grad():
        for name, tensor in drawn.items():
            state[name].copy_(tensor)
        wanted, found = (
            other(images),
            assemble(graph, lambda name: state[name] if name in state else kept[name])(images),
        )
    wanted = wanted if isinstance(wanted, Tensor) else wanted.logits
    if not torch.isfinite(wanted).all():
        raise ValueError("it answers NaN")
    if not torch.allclose(found, wanted, rtol=EQUAL, atol=EQUAL * float(wanted.abs().max())):
        raise ValueError(f"its graph differs by {float((found - wanted).abs().max()):g}")


def constants(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a state dict leaves out; raise ValueError where that is large."""
    found = {one.name: tensors[one.name] for one in graph.weights if one.kind == "constant" and one.same_as is None}
    if any(one.nbytes > MOST_CONSTANT for one in found.values()):
        raise ValueError("a large tensor that the state dict leaves out")
    return found


def write(library: str, version: str, made: Sequence[Made]) -> None:
    """Write the file: an entry for each family, as what is alike in it is stored once."""
    free = sorted({one.free for one in made}, key=repr)
    rows: dict[str, list[bytes]] = {}
    places, digests, arrays = dict[str, Place](), dict[str, dict[bytes, str]](), dict[str, bytes]()
    for one in sorted(made, key=lambda one: one.name):
        described = {key: _stored(value, arrays) for key, value in sorted(one.constants.items())}
        graph = json.loads(one.graph)
        row = canonical_json({"graph": graph, "constants": described})
        family = rows.setdefault(one.family, [])
        if row not in family:
            family.append(row)
        places[one.name] = Place(one.family, family.index(row), one.digest, free.index(one.free))
        digests.setdefault(one.digest, {}).setdefault(canonical_json(computed(graph)), one.name)
    configs = {one.name: one.config for one in made if one.config}
    index = Index(library, version, places, {key: tuple(v.values()) for key, v in digests.items()}, free, configs)
    entries = {INDEX: index.to_json(), **arrays}
    entries |= {f"{family}.json": b"[" + b",".join(found) + b"]" for family, found in sorted(rows.items())}
    with zipfile.ZipFile(path(library), "w", zipfile.ZIP_LZMA) as file:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            file.writestr(entry, content)
    several = sum(len(found) > 1 for found in index.digests.values())
    print(f"{len(places)} names, {sum(map(len, rows.values()))} graphs, {len(arrays)} tensors, {len(digests)} digests")
    print(f"{several} digests of several architectures; {path(library).stat().st_size:,} bytes")


def _stored(tensor: Tensor, arrays: dict[str, bytes]) -> tuple[str, list[int], str]:
    """Return dtype, shape and entry of a tensor; the same one is stored once."""
    array = tensor.detach().contiguous().numpy()
    content = array.tobytes()
    entry = f"{TENSORS}{hashlib.sha256(content).hexdigest()[:16]}"
    arrays[entry] = content
    return array.dtype.str, list(array.shape), entry


def computed(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a graph what decides its outputs in eval mode."""
    return {**graph, "modules": [_plain(one) for one in graph["modules"]]}


def _plain(module: Mapping[str, Any]) -> dict[str, Any]:
    if "arguments" not in module:
        return {key: value for key, value in module.items() if key != "class"}
    idle = {
        "inplace",
        *(n for kind, names in WITHOUT_EFFECT.items() if module["class"].startswith(kind) for n in names),
    }
    return {**module, "arguments": {key: value for key, value in module["arguments"].items() if key not in idle}}
