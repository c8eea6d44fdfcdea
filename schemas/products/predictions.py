"""The product `predictions`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product

OutputKind = Literal["logits", "log_probabilities", "probabilities"]


class Predictions(Product):
    """The model's outputs on every image of the test part, in its order."""

    declared: ClassVar = Declaration(
        "predictions", recipe=1, reads_model=True, parts=("test",), parameters={"batch": 64}, on_gpu=True
    )

    outputs: Array = Field(description="float32 (N, C): one row an image, one column a class, as the model gave them")
    output_kind: OutputKind = Field(description="what a row is; see functions/predictions")
    images: int = Field(description="N")
    non_finite: int = Field(description="images with a NaN or infinity among their outputs")

    def headline(self) -> Headline:
        """Return the number of images, and of those without finite outputs."""
        return {"images": self.images, "non_finite": self.non_finite}
