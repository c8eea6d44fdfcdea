"""Feature activation: which test images make each channel of each layer respond most, from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.sprites import SheetImage
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from layerscope.functions.feature_activation.selection import Shown
    from layerscope.models.safe_form import SafeModel


def compute(model: SafeModel, dataset: Dataset, device: str) -> FeatureActivation:
    """Rank the images of the test part for every channel, and picture the strongest channels of each layer.

    Raises:
        Refused: the model has no layer with channels to rank images for, or does not fit the dataset.
    """
    # torch is imported in the worker only
    from layerscope.functions.analysis.feature_maps.shapes import recorded, shaped
    from layerscope.functions.analysis.feature_maps.sites import sites
    from layerscope.functions.analysis.inference import fit
    from layerscope.functions.feature_activation.selection import Shown, strongest_channels
    from layerscope.functions.feature_activation.stream import batch_size, rank

    images, limits = dataset.part("test").images, FeatureActivation.declared.parameters
    found_sites = sites(model.safe_graph)
    if not found_sites:
        raise Refused(
            "no-channels",
            "The model has neither a convolution nor a linear layer with an activation, so no channels to show images for.",
            "Nothing to mend: its other products are there, see `layerscope show`.",
        )
    with recorded(model, found_sites) as shapes:
        classifier = fit(model, images, dataset.description, device)
    layers = [shaped(site, shapes, len(images[:2])) for site in found_sites]
    batched = [layer.site for layer in layers if layer.batched]
    found = iter(rank(classifier, model, batched, images, limits["k"], batch_size(images)))
    most = min(limits["channels"], max(4, limits["channels_in_all"] // len(layers)))
    shown = []
    for layer in layers:
        ranked = next(found) if layer.batched else None
        shown.append(Shown(layer, ranked, strongest_channels(ranked, most) if ranked else ()))
    return _product(shown, dataset)


def _product(shown: Sequence[Shown], dataset: Dataset) -> FeatureActivation:
    """Put the pictures on their sheets, and everything together."""
    from layerscope.functions.analysis.images import sprite_sheet
    from layerscope.functions.feature_activation.selection import arrays, grey, layer_channels, named_images

    test, limits = dataset.part("test"), FeatureActivation.declared.parameters
    named = named_images(shown)
    height, width, _ = dataset.description.shape
    indices = sorted(named[: min(limits["images"], max(limits["fewest"], limits["pixels"] // (height * width)))])
    sheet, places = sprite_sheet(test.images[indices])
    maps, map_places = sprite_sheet([grey(one.ranked.maps[k]) for one in shown if one.ranked for k in one.mapped])
    first_rows = np.cumsum([0, *(one.layer.site.channels for one in shown[:-1])]).tolist()
    left = iter(map_places)
    return FeatureActivation(
        images=len(test),
        layers=tuple(
            layer_channels(one, row, tuple(islice(left, len(one.mapped))))
            for one, row in zip(shown, first_rows, strict=True)
        ),
        examples=tuple(
            SheetImage(index=index, label=int(test.labels[index]), place=place)
            for index, place in zip(indices, places, strict=True)
        ),
        examples_cut=len(named) - len(indices),
        sheet=sheet,
        maps=maps,
        **arrays(shown, limits["k"]),
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(FeatureActivation, compute)
