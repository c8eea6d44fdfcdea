"""A model's layers on the probe part of its dataset, from one forward pass: what every product about them begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.representation.layers import Compared, References, compare
from layerscope.functions.analysis.representation.vectors import FEWEST_IMAGES, label_gram, packed
from layerscope.schemas.datasets import MOST_PROBE_IMAGES
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


def references(dataset: Dataset, device: str, input_like_below: float) -> References:
    """Return what the layers of every model on this dataset are compared with: its probe images, and their labels.

    Raises:
        Refused: the probe part is too small to compare anything on, or too large.
    """
    # torch is imported in the worker only
    from layerscope.functions.analysis.inference import normalised
    from layerscope.functions.analysis.representation.grams import gram

    probe = dataset.part("probe")
    _check_number(len(probe.images), dataset.description.name)
    input_gram = gram(normalised(probe.images, dataset.description, device).flatten(1))
    return References(
        inputs=packed(input_gram.centred),
        labels=packed(label_gram(probe.labels)),
        input_like_below=input_like_below,
    )


def compared(model: nn.Module, dataset: Dataset, device: str, given: References) -> list[Compared]:
    """Return every call of every weight layer of a model in eval mode, in the order of the forward pass.

    Raises:
        Refused: the model does not fit the dataset.
    """
    from layerscope.functions.analysis.representation.responses import responses

    types = {name: type(module).__name__ for name, module in model.named_modules()}
    return [
        compare(
            Layer(name=one.call.layer, call=one.call.number, type=types[one.call.layer], shape=one.shape),
            one.gram,
            given,
        )
        for one in responses(model, dataset.part("probe").images, dataset.description, device)
    ]


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
