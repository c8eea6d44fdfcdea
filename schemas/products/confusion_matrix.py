"""The product `confusion_matrix`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerscope.schemas.files import Picture
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.product import Declaration, Product, ProductPart


class Confusion(ProductPart):
    """Images of one class that were predicted as another."""

    true: int = Field(description="index of the true class")
    predicted: int = Field(description="index of the predicted class")
    true_name: str
    predicted_name: str
    images: int
    rate: float = Field(description="share of the true class's images")


class ConfusionMatrix(Product):
    """How often each true class (row) is predicted as each class (column)."""

    declared: ClassVar = Declaration("confusion_matrix", recipe=1, parts=("test",), inputs=(Predictions,))

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] = Field(description="(C, C) images; images without finite outputs are left out")
    rates: tuple[tuple[float | None, ...], ...] = Field(
        description="(C, C) shares of a row; null for a class without images"
    )
    left_out: int = Field(description="images without finite outputs")
    most_confused: tuple[Confusion, ...] = Field(description="up to 20 off-diagonal cells, most images first")
    heatmap: Picture = Field(description="row-normalised matrix with the counts as text")

    def headline(self) -> Headline:
        """Return the most confused pair."""
        if not self.most_confused:
            return {"most_confused": None}
        worst = self.most_confused[0]
        return {"most_confused": f"{worst.true_name} as {worst.predicted_name}", "images": worst.images}
