"""Split: where a model can be cut into stages, what crosses at each cut, and the proof that its outputs stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.digests import sha256
from layerscope.schemas.products.split import Split, SplitCut
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from layerscope.models.safe_form import SafeModel

RUNS = 3
"""Of the proof: the model itself, its stages with values left in memory, its stages with values sent."""


def compute(model: SafeModel, dataset: Dataset, device: str) -> Split:
    """List the cuts of a model, and run it whole and cut at all of them.

    Raises:
        Refused: the model does not fit its dataset.
    """
    # torch is imported in the worker only
    import torch

    from layerscope.functions.analysis.inference import fit, inference, normalised
    from layerscope.functions.split.segments import listed, place, segment_costs
    from layerscope.models.stages import certificate, functional

    parameters, described = Split.declared.parameters, dataset.description
    probe = dataset.part("probe").images
    fit(model, probe, described, device, as_it_is=True)  # as a stage is built
    graph = functional(model.safe_graph)
    with inference():
        first = normalised(probe[:1], described, device)
        values, places = listed(model, graph, first, parameters["most_cuts"])
    costs = segment_costs(model, graph, places, torch.zeros(first.shape, device=device))
    count = affordable(len(probe), sum(one.multiply_adds for one in costs), parameters["multiply_adds"])
    images = probe[:count]
    with inference():
        batches = [
            normalised(images[k : k + parameters["batch"]], described, device)
            for k in range(0, count, parameters["batch"])
        ]
        proof = certificate.certify(model, graph, places, batches)
    carried = [tuple(values[one] for one in cut.values) for cut in places]
    return Split(
        graph=sha256(model.safe_graph.to_json()),
        device=device,
        batch=parameters["batch"],
        threads=torch.get_num_threads(),
        images=count,
        input_bytes=first.numel() * first.element_size(),
        sha256=proof.sha256,
        equal=proof.is_equal,
        cuts=tuple(
            SplitCut(
                after=seen.cut.after,
                name=place(graph, seen.cut),
                values=over,
                bytes=sum(one.bytes for one in over),
                sha256=seen.sha256,
                equal=seen.is_equal,
            )
            for seen, over in zip(proof.cuts, carried, strict=True)
        ),
        segments=tuple(costs),
    )


def affordable(images: int, multiply_adds: int, most: int) -> int:
    """Return over how many of these images the proof may run, where a forward pass costs so much: one at least."""
    return max(1, min(images, most // max(1, RUNS * multiply_adds)))


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Split, compute)
