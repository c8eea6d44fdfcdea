"""A model's layers over probe images, from one forward pass: what every product about them begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.representation.layers import Compared, References, compare, stacked
from layerscope.functions.analysis.representation.vectors import (
    FEWEST_IMAGES,
    Gram,
    label_gram,
    neighbours,
    packed,
    upper_triangle,
)
from layerscope.schemas.datasets import MOST_PROBE_IMAGES, DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Images on which layers are compared, as the models of one dataset are given them; `labels` None: of no classes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    description: DatasetDescription

    @property
    def pairs(self) -> int:
        """Return how many pairs of images there are: the length of a layer's vectors."""
        return len(self.images) * (len(self.images) - 1) // 2


def own_probe(dataset: Dataset) -> Probe:
    """Return the probe part of a dataset.

    Raises:
        Refused: it is too small to compare anything on, or too large.
    """
    part, name = dataset.part("probe"), dataset.description.name
    if len(part.images) < FEWEST_IMAGES:
        raise Refused(
            "probe-too-small",
            f"The probe set of {name} has {len(part.images)} images; layers are compared on {FEWEST_IMAGES} at least, "
            "and on 100 for scores that mean something.",
            "Add the dataset again with a larger probe part: `layerscope datasets add NAME --probe probe.npz …`.",
        )
    if len(part.images) > MOST_PROBE_IMAGES:
        raise Refused(
            "probe-too-large",
            f"The probe set of {name} has {len(part.images)} images; layers are compared on {MOST_PROBE_IMAGES} at most.",
            "Add the dataset again with a smaller probe part, of 100 images for example: "
            "`layerscope datasets add NAME --probe probe.npz …`.",
        )
    return Probe(part.images, part.labels, dataset.description)


def common_probe(dataset: Dataset, most: int) -> Probe:
    """Return of the common probe set up to `most` images, evenly from the first to the last.

    Raises:
        Refused: it is too small to compare anything on.
    """
    images = dataset.part("common").images
    if len(images) < FEWEST_IMAGES:
        raise Refused(
            "probe-too-small",
            f"The common probe set of {dataset.description.name} has {len(images)} images; layers are compared on "
            f"{FEWEST_IMAGES} at least.",
            "Add a larger dataset of this image shape, then: `layerscope datasets renew-common NAME`.",
        )
    chosen = np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)
    return Probe(images[chosen], None, dataset.description)


def references(probe: Probe, device: str, input_like_below: float) -> References:
    """Return what the layers of every model over these images are compared with: the images, and their labels."""
    # torch is imported in the worker only
    from layerscope.functions.analysis.inference import normalised
    from layerscope.functions.analysis.representation.grams import gram

    input_gram = gram(normalised(probe.images, probe.description, device).flatten(1))
    return References(
        inputs=packed(input_gram.centred),
        labels=None if probe.labels is None else packed(label_gram(probe.labels)),
        input_like_below=input_like_below,
        input_neighbours=neighbours(input_gram.centred),
        input_gram=upper_triangle(input_gram.centred),
    )


def compared(model: nn.Module, probe: Probe, device: str, given: References) -> list[Compared]:
    """Return every call of every weight layer of a model in eval mode, in the order of the forward pass.

    Raises:
        Refused: the model does not fit the dataset.
    """
    return [compare(layer, gram, given) for layer, gram in calls(model, probe, device)]


def calls(model: nn.Module, probe: Probe, device: str) -> list[tuple[Layer, Gram | None]]:
    """Return the same calls with their Grams, before they are compared; None where a layer has no rows by image.

    Raises:
        Refused: the model does not fit the dataset.
    """
    from layerscope.functions.analysis.representation.responses import responses

    types = {name: type(module).__name__ for name, module in model.named_modules()}
    return [
        (Layer(name=one.call.layer, call=one.call.number, type=types[one.call.layer], shape=one.shape), one.gram)
        for one in responses(model, probe.images, probe.description, device)
    ]


def arrays(found: list[Compared], probe: Probe) -> dict[str, Any]:
    """Return the Grams and vectors of layers, by the names that products have for them."""
    return {
        "grams": stacked([one.gram for one in found], probe.pairs + len(probe.images)),
        "cka": stacked([one.cka for one in found], probe.pairs),
        "deconfounded": stacked([one.deconfounded for one in found], probe.pairs),
        "neighbours": stacked([one.neighbours for one in found], probe.pairs),
    }
