"""The product `example_images`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerscope.schemas.files import Array, Picture
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.product import Declaration, Product, ProductPart
from layerscope.schemas.products.sprites import SheetImage


class ExampleImage(SheetImage):
    """One image that is shown, and what the model says of it."""

    predicted: int = Field(description="index of the predicted class")
    confidence: float = Field(description="probability of the predicted class")


class ExampleCell(ProductPart):
    """A cell of the confusion matrix and its most confident images."""

    true: int = Field(description="index of the true class")
    predicted: int = Field(description="index of the predicted class")
    images: int = Field(description="images in the cell, whether shown or not")
    examples: tuple[int, ...] = Field(description="indices of those shown, most confident first")


class ConfusedPair(ProductPart):
    """The off-diagonal cell with the most images, and the mistake that stands for them."""

    true: int = Field(description="index of the true class")
    predicted: int = Field(description="index of the predicted class")
    images: int
    representative: int = Field(
        description="index of the pair's medoid: of its images, the one whose probabilities have the smallest sum of "
        "squared distances to those of the others"
    )


class ExampleImages(Product):
    """The test images that show best what the model does, on a sheet; and what it answers for each of all.

    Images are named by their index in the test part.
    Equal confidences go by index. Images whose outputs are not finite are left out of lists, and named.
    """

    declared: ClassVar = Declaration(
        "example_images",
        recipe=2,
        parts=("test",),
        inputs=(Predictions,),
        parameters={"images": 400, "pixels": 4_000_000, "fewest": 32, "listed": 24, "a_cell": 3},
    )

    classes: tuple[str, ...]
    examples: tuple[ExampleImage, ...] = Field(description="every image that is shown, by index")
    cells: tuple[ExampleCell, ...] = Field(
        description="cells with images, as far as the sheet reaches: the diagonal in class order, then most images first"
    )
    cells_left_out: int = Field(
        description="cells with images for which the sheet was too small: those with the fewest"
    )
    most_confused: ConfusedPair | None = Field(description="null where no image is wrong")
    most_confident_right: tuple[int, ...]
    least_confident_right: tuple[int, ...]
    most_confident_wrong: tuple[int, ...]
    right: int = Field(description="images predicted as their own class")
    wrong: int = Field(description="images predicted as another class")
    non_finite: int = Field(description="images without finite outputs")
    non_finite_first: tuple[int, ...] = Field(description="indices of the first of them")
    labels: Array = Field(description="int32 (N,): the true class of each test image")
    predicted: Array = Field(description="int32 (N,): the class that it is taken for; -1 where outputs are not finite")
    confidence: Array = Field(description="float32 (N,): the probability of that class; 0 likewise")
    own: Array = Field(description="float32 (N,): the probability of the true class; 0 likewise")
    sheet: Picture = Field(description="the images in their own pixels; enlarge them by whole pixels only")

    def headline(self) -> Headline:
        """Return the number of images shown, and the mistake that stands for the most confused pair."""
        worst = self.most_confused.representative if self.most_confused else None
        return {"examples": len(self.examples), "representative_mistake": worst}
