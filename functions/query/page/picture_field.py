"""The field of a model's page that takes a picture: whether one can be drawn there, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from layerscope.schemas.datasets import DatasetDescription

LARGEST_DRAWN: Final = 32


@dataclass(frozen=True, slots=True)
class PictureField:
    """Height and width of the dataset's images; `drawn`: a picture can be drawn, light on `dark` ground or dark on light."""

    height: int
    width: int
    drawn: bool
    dark: bool


def picture_field(description: DatasetDescription) -> PictureField:
    """Return the field for models on a dataset: small grey images can be drawn, on their own ground."""
    height, width, channels = description.shape
    drawn = channels == 1 and max(height, width) <= LARGEST_DRAWN
    return PictureField(height, width, drawn, dark=description.mean[0] < 0.5)
