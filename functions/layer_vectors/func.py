"""Layer vectors: what makes the layers of different models comparable, from one forward pass over the probe set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.layer_vectors.layers import References, compare, stacked
from layerscope.functions.layer_vectors.vectors import FEWEST_IMAGES, label_gram, packed
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.datasets import MOST_PROBE_IMAGES
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def compute(model: nn.Module, dataset: Dataset, device: str) -> LayerVectors:
    """Compare each layer's responses to any two images of the probe part, and pack them as vectors.

    Raises:
        Refused: the model does not fit the dataset, or the probe part is too small to compare anything on.
    """
    # torch is imported in the worker only
    from layerscope.functions.analysis.inference import normalised
    from layerscope.functions.layer_vectors.grams import gram
    from layerscope.functions.layer_vectors.responses import responses

    probe = dataset.part("probe")
    images, n = probe.images, len(probe.images)
    _check_number(n, dataset.description.name)
    answered = responses(model, images, dataset.description, device)
    input_gram = gram(normalised(images, dataset.description, device).flatten(1))
    references = References(
        inputs=packed(input_gram.centred),
        labels=packed(label_gram(probe.labels)),
        input_like_below=LayerVectors.declared.parameters["input_like_below"],
    )
    types = {name: type(module).__name__ for name, module in model.named_modules()}
    compared = [
        compare(
            Layer(name=one.call.layer, call=one.call.number, type=types[one.call.layer], shape=one.shape),
            one.gram,
            references,
        )
        for one in answered
    ]
    pairs = n * (n - 1) // 2
    return LayerVectors(
        probe=dataset.description.part_digest("probe") or "",
        images=n,
        layers=tuple(one.layer for one in compared),
        grams=stacked([one.gram for one in compared], pairs + n),
        cka=stacked([one.cka for one in compared], pairs),
        deconfounded=stacked([one.deconfounded for one in compared], pairs),
    )


def _check_number(images: int, dataset: str) -> None:
    if images < FEWEST_IMAGES:
        raise Refused(
            "probe-too-small",
            f"The probe set of {dataset} has {images} images; layers are compared on {FEWEST_IMAGES} at least, and on "
            "100 for scores that mean something.",
            "Add the dataset again with a larger probe part: `layerscope datasets add NAME --probe probe.npz …`.",
        )
    if images > MOST_PROBE_IMAGES:
        raise Refused(
            "probe-too-large",
            f"The probe set of {dataset} has {images} images; layers are compared on {MOST_PROBE_IMAGES} at most.",
            "Add the dataset again with a smaller probe part, of 100 images for example: "
            "`layerscope datasets add NAME --probe probe.npz …`.",
        )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(LayerVectors, compute)
