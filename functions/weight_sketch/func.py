"""Weight sketch: what the weights of two models are compared by without reading them, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.weight_sketch.sketch import centred, sketched
from layerscope.schemas.digests import digest, sha256
from layerscope.schemas.products.weight_sketch import SketchedTensor, WeightSketch

if TYPE_CHECKING:
    from layerscope.models.safe_form import SafeModel
    from layerscope.models.safe_form.graph_spec import Weight

COUNTER = "num_batches_tracked"  # as torch's BatchNorm calls it


def compute(model: SafeModel, device: str) -> WeightSketch:
    """Sketch the tensors of a model, on the CPU wherever the model is."""
    declared = WeightSketch.declared
    limits, seed = declared.parameters, declared.seed or 0
    held = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    own = [weight for weight in model.safe_graph.weights if weight.same_as is None]
    tensors, rows, batches = [], [], []
    for weight in own[: limits["most_tensors"]]:
        values = held[weight.name].detach().cpu().contiguous().numpy()
        if weight.name.endswith(COUNTER):
            batches.append(int(values))
        matrix = _matrix(weight, values, limits["fewest"])
        if matrix is not None:
            rows.append(sketched(matrix, limits["numbers"], seed).astype(np.float32))
        tensors.append(_line(weight, values, None if matrix is None else (len(rows) - 1, matrix)))
    return WeightSketch(
        architecture=_architecture(model),
        batches=max(batches, default=None),
        tensors=tuple(tensors),
        left_out=max(0, len(own) - limits["most_tensors"]),
        rows=np.stack(rows) if rows else np.zeros((0, limits["numbers"]), np.float32),
    )


def _matrix(weight: Weight, values: NDArray[Any], fewest: int) -> NDArray[np.float64] | None:
    sketchable = weight.kind == "parameter" and values.ndim >= 2 and values.size >= fewest
    return centred(values) if sketchable and values.dtype == np.float32 else None


def _line(weight: Weight, values: NDArray[Any], row: tuple[int, NDArray[np.float64]] | None) -> SketchedTensor:
    return SketchedTensor(
        name=weight.name,
        kind=weight.kind,
        shape=values.shape,
        trainable=weight.requires_grad,
        sha256=sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()),
        row=row[0] if row else None,
        norm=float(np.linalg.norm(row[1])) if row else None,
    )


def _architecture(model: SafeModel) -> str:
    """Return a digest of the graph in which a frozen parameter is as good as one that learns."""
    from layerscope.models.safe_form.graph_nodes import node_to_json

    graph = model.safe_graph
    return digest(
        {
            "modules": [[one.name, one.kind, one.arguments, one.same_as] for one in graph.modules],
            "tensors": [[one.name, one.kind, one.same_as] for one in graph.weights],
            "nodes": [node_to_json(node) for node in graph.nodes],
        }
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(WeightSketch, compute)
