"""Preprocessing: how often the model is right when the same test images are prepared in other ways."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from layerscope.functions.analysis.outputs import predicted_classes
from layerscope.functions.preprocessing.ways import ways
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.preprocessing import Preprocessing, Way
from layerscope.stores.datasets import Dataset, choose_probe

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> Preprocessing:
    """Run the model on the same images as the dataset prepares them, and in each other way.

    An answer that is not finite counts as wrong.

    Raises:
        Refused: the model does not fit its dataset.
    """
    from layerscope.functions.analysis.inference import fit  # torch is imported in the worker only

    parameters, test = Preprocessing.declared.parameters, dataset.part("test")
    some = test.take(choose_probe(test.labels, parameters["images"]))
    classifier = fit(model, some.images, dataset.description, device)
    right = predicted_classes(classifier.outputs(some.images, parameters["batch"])) == some.labels
    found = []
    for way in ways(some.images, dataset.description):
        other = replace(classifier, description=way.description)
        so = predicted_classes(other.outputs(way.images, parameters["batch"])) == some.labels
        found.append(
            Way(name=way.name, correct=int(so.sum()), gained=int((so & ~right).sum()), lost=int((right & ~so).sum()))
        )
    return Preprocessing(images=len(some), correct=int(right.sum()), ways=tuple(found))


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Preprocessing, compute)
