"""The ways in which images may have been prepared for a model: pure functions of pixels, and means and deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.preprocessing import WayName

Images = NDArray[np.uint8]
Figures = tuple[float, ...]

IMAGENET: Final[tuple[Figures, Figures]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels, as torchvision's weights expect them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images (N, H, W, C) as they would be, and the dataset's description with their mean and standard deviation."""

    name: WayName
    images: Images
    description: DatasetDescription


def ways(images: Images, description: DatasetDescription) -> Iterator[Prepared]:
    """Prepare images (N, H, W, C) in every way that is another than the description's."""
    height, width, channels = description.shape
    turned: list[tuple[WayName, Callable[[Images], Images]]] = [("inverted", _inverted)]
    turned += [("channels_reversed", _reversed)] if channels == 3 else []
    turned += [("transposed", _transposed)] if height == width else []
    for name, turn in turned:
        if not np.array_equal(other := turn(images), images):
            yield Prepared(name, other, description)
    scaled: list[tuple[WayName, Figures, Figures]] = [
        ("zero_to_one", (0.0,) * channels, (1.0,) * channels),
        ("minus_one_to_one", (0.5,) * channels, (0.5,) * channels),
        ("zero_to_255", (0.0,) * channels, (1 / 255,) * channels),
    ]
    scaled += [("imagenet", *IMAGENET)] if channels == 3 else []
    for name, mean, std in scaled:
        if not _same(description, mean, std):
            yield Prepared(name, images, description.model_copy(update={"mean": mean, "std": std}))


def _inverted(images: Images) -> Images:
    return np.subtract(255, images, dtype=np.uint8)


def _reversed(images: Images) -> Images:
    return np.ascontiguousarray(images[..., ::-1])


def _transposed(images: Images) -> Images:
    return np.ascontiguousarray(images.transpose(0, 2, 1, 3))


def _same(description: DatasetDescription, mean: Figures, std: Figures) -> bool:
    """Tell whether figures differ from the dataset's by less than two shades of 255."""
    return np.allclose(description.mean, mean, rtol=0, atol=2 / 255) and np.allclose(description.std, std, rtol=0.02)
