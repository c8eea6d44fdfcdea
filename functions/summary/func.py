"""Summary: what a model is made of, from its graph; what it costs for one image, if it is known what an image is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.summary import Summary

if TYPE_CHECKING:
    from layerscope.models.safe_form import SafeModel

NO_DATASET = "There is no dataset of this name, so the shape of its images is not known."


def compute(model: SafeModel, device: str, shape: tuple[int, int, int] | None) -> Summary:
    """Describe a model.

    Nothing is computed on `device`: shapes and costs come from torch's meta device. A model that does not take images of
    `shape` (height, width, channels) is described without them.
    """
    # torch is imported in the worker only
    from layerscope.functions.summary import shapes, source, table, tensors
    from layerscope.functions.summary.blocks import architecture
    from layerscope.functions.summary.diagram import diagram
    from layerscope.functions.summary.modules import Tree
    from layerscope.models.safe_form import costs

    graph, parameters = model.safe_graph, Summary.declared.parameters
    cost, missing = None, NO_DATASET
    if shape is not None:
        try:
            cost, missing = costs.measure(model, (shape[2], shape[0], shape[1])), ""
        except Refused as refused:
            missing = refused.message
    known = shapes.shapes(model, shape) if cost is not None and shape is not None else {}
    rows = list(table.rows(model, cost, known))
    form, written = architecture(graph)
    return Summary(
        input=shape,
        kind=graph.modules[0].kind,
        shapes_missing=missing or None,
        **table.totals(model),
        multiply_adds=cost.multiply_adds if cost else None,
        activation_bytes=cost.activation_bytes if cost else None,
        steps=len(graph.nodes),
        layers=tuple(rows[: parameters["most_layers"]]),
        layers_left_out=max(0, len(rows) - parameters["most_layers"]),
        form=form,
        constants_left_out=tuple(tensors.left_out(graph, lambda name: source.tensor(model, name))),
        architecture=written,
        source=source.source(model, Tree(graph)),
        diagram=diagram(graph, known, parameters["most_boxes"]),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Summary, compute)
