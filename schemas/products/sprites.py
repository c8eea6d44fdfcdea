"""Pictures that travel together: one sheet a product, and the place of each picture on it."""

from __future__ import annotations

from pydantic import Field

from layerscope.schemas.products.product import ProductPart


class Place(ProductPart):
    """Where a picture lies on a sprite sheet, in the sheet's own pixels from its top left."""

    x: int
    y: int
    w: int = Field(description="width")
    h: int = Field(description="height")


class SheetImage(ProductPart):
    """An image of the test part on a sheet."""

    index: int = Field(description="position in the test part")
    label: int = Field(description="index of the true class")
    place: Place
