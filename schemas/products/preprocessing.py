"""The product `preprocessing`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart

WayName = Literal[
    "inverted", "channels_reversed", "transposed", "zero_to_one", "minus_one_to_one", "imagenet", "zero_to_255"
]
"""How pixels are prepared otherwise than the dataset says: turned (255 - pixel; BGR for RGB; rows for columns), or scaled
to 0..1, to -1..1, by the mean and standard deviation of ImageNet's channels, or not at all."""


class Way(ProductPart):
    """One way to prepare the same images, against what the dataset says."""

    name: WayName
    correct: int = Field(description="images that are right so")
    gained: int = Field(description="images that are right only so")
    lost: int = Field(description="images that are right only as the dataset says")


class Preprocessing(Product):
    """How often the model would be right if its images were prepared otherwise than its dataset says.

    A model that was trained on pixels of another mean, inverted ones or BGR is right more often when it is given such: on
    test images of all classes alike, run in each way, image by image. Ways that a dataset's images do not have are left
    out, as are those that leave them as they are.
    """

    declared: ClassVar = Declaration(
        "preprocessing",
        recipe=1,
        reads_model=True,
        parts=("test",),
        parameters={"images": 256, "batch": 64},
        on_gpu=True,
    )

    images: int = Field(description="test images on which each way was tried, as many of each class")
    correct: int = Field(description="of these, how many are right as the dataset says")
    ways: tuple[Way, ...]

    def headline(self) -> Headline:
        """Return how many images are right, and the way in which more are than in any other."""
        best = max(self.ways, key=lambda one: one.correct, default=None)
        better = best is not None and best.correct > self.correct
        return {"images": self.images, "correct": self.correct, "better": best.name if best and better else None}
