"""The product `weight_sketch`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart


class SketchedTensor(ProductPart):
    """One parameter, buffer or constant of a model."""

    name: str
    kind: Literal["parameter", "buffer", "constant"]
    shape: tuple[int, ...]
    trainable: bool = Field(description="false too for what is no parameter")
    sha256: str = Field(description="of its numbers, little-endian, floating-point ones as float32")
    row: int | None = Field(
        description="in `rows`; null: not a parameter of two axes or more, fewer than `fewest` numbers, one that is not "
        "finite, or nothing left without the means of its rows and columns"
    )
    norm: float | None = Field(description="Euclidean, of what `rows` sketches; null where it has no row")


class WeightSketch(Product):
    """What two models' weights are compared by, tensor by tensor, without the weights: digests and short projections.

    A parameter of two axes or more is taken as a matrix (first axis, all others), the means of its rows and columns are
    taken out, and its CountSketch (Charikar et al. 2002) of `numbers` numbers is kept. The distance of two sketches of
    one shape is that of the two matrices to a relative standard deviation of sqrt(1 / (2 * numbers)), 3.1 %.
    """

    declared: ClassVar = Declaration(
        "weight_sketch",
        recipe=1,
        reads_model=True,
        parameters={"numbers": 512, "fewest": 256, "most_tensors": 4096},
        seed=0,
    )

    architecture: str = Field(description="digest of the modules, their arguments and the calls, without any weights")
    batches: int | None = Field(
        description="the most that one of its BatchNorm layers has counted in training; null: it has none that counts"
    )
    tensors: tuple[SketchedTensor, ...] = Field(description="in the model's own order; tied ones once")
    left_out: int = Field(description="tensors beyond `most_tensors`")
    rows: Array = Field(description="float32 (S, numbers)")

    def headline(self) -> Headline:
        """Return how many tensors there are, and how many of them are sketched."""
        return {"tensors": len(self.tensors) + self.left_out, "sketched": len(self.rows)}
