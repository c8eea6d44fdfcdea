"""Class vectors: what each class of a model responds to, over images that models of other datasets are given as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from layerscope.functions.analysis.outputs import output_kind
from layerscope.functions.class_vectors.responses import responses
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.class_vectors import ClassLine, ClassVectors
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> ClassVectors:
    """Run the model over the common probe set, given as its own dataset's images are, and untrained networks like it.

    Raises:
        Refused: the model does not fit its dataset.
    """
    # torch is imported in the worker only
    from layerscope.functions.analysis.inference import fit
    from layerscope.functions.analysis.untrained import affordable, untrained

    declared = ClassVectors.declared
    batch, most = declared.parameters["batch"], declared.parameters["networks"]
    images, described = dataset.part("common").images, dataset.description
    outputs = fit(model, images, described, device).outputs(images, batch)
    kind = output_kind(outputs)
    found = responses(outputs, kind)
    drawn = []
    networks = affordable(model, images.shape, declared.parameters["multiply_adds"], most)
    for network in range(networks):
        made = untrained(model, (declared.seed or 0) * most + network)
        answers = fit(made, images, described, device).outputs(images, batch)
        drawn.append(responses(answers, output_kind(answers)).vectors)
    lines = zip(described.classes, found.states, found.deviations, strict=True)
    return ClassVectors(
        probe=described.common.sha256 if described.common else "",
        images=len(images),
        output_kind=kind,
        classes=tuple(ClassLine(name=name, state=state, deviation=spread) for name, state, spread in lines),
        networks=networks,
        vectors=found.vectors,
        untrained=np.stack(drawn),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(ClassVectors, compute)
