"""Predictions: the model's outputs on every image of the test part, from which three other products are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.outputs import finite_rows, output_kind
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> Predictions:
    """Run the model over the test part.

    Raises:
        Refused: the model does not take the dataset's images, or does not return one number a class for each of them.
    """
    from layerscope.functions.analysis.inference import fit  # torch is imported in the worker only

    images = dataset.part("test").images
    classifier = fit(model, images, dataset.description, device)
    outputs = classifier.outputs(images, batch=Predictions.declared.parameters["batch"])
    return Predictions(
        outputs=outputs,
        output_kind=output_kind(outputs),
        images=len(outputs),
        non_finite=int((~finite_rows(outputs)).sum()),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Predictions, compute)
