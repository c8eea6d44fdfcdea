"""The product `layer_vectors`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart

LayerState = Literal["ok", "constant", "non_finite", "unbatched"]
Metric = Literal["cka", "deconfounded", "neighbours", "classic"]
Debiased = Literal["cka", "deconfounded", "neighbours"]
"""Those metrics that are 0 by chance; `classic`, the older system's, is not."""


class Layer(ProductPart):
    """One call of one layer, and the health of its responses to the probe set."""

    name: str = Field(description="the layer's name, as in named_modules()")
    call: int = Field(description="0 for the first call of this module, 1 for the second")
    type: str = Field(description="class of the module")
    shape: tuple[int, ...] = Field(description="shape of one image's response; of all of it where unbatched")
    state: LayerState = Field(
        default="ok",
        description="only ok layers are indexed. constant: all images alike, or no pattern among them; non_finite: "
        "NaN, infinity or overflow; unbatched: the first axis of the response is not the images",
    )
    effective_dimension: float | None = Field(
        default=None, description="participation ratio of the centred Gram, 1..n-1"
    )
    input_cka: float | None = Field(
        default=None, description="debiased CKA with the input images; near 1: the layer passes them on"
    )
    label_cka: float | None = Field(default=None, description="debiased CKA with the one-hot labels")
    max_leverage: float | None = Field(
        default=None, description="largest share of the Gram's trace that one image holds; above 0.2, one image decides"
    )
    input_like: bool = Field(
        default=False, description="too close to the input for its deconfounded vector to mean anything"
    )

    @property
    def id(self) -> str:
        """Return how the layer is addressed: its name, with `:call` from the second call on."""
        return self.name if self.call == 0 else f"{self.name}:{self.call}"


class LayerVectors(Product):
    """What makes layers of different models comparable: Gram matrices over the probe set, packed as vectors.

    The inner product of two layers' `cka` vectors is their debiased linear CKA; of their `deconfounded` vectors, the
    same with what both share with the input images taken out; of their `neighbours` vectors, the overlap of the nearest images
    of each image, with that of the input images taken out. By the older system's recipe they are compared from their
    `grams`. A layer of which less than `input_like_below` would be
    left, `1 - input_cka ** 2`, has no deconfounded vector, and no neighbours.
    """

    declared: ClassVar = Declaration(
        "layer_vectors",
        recipe=2,
        reads_model=True,
        parts=("probe",),
        parameters={"metrics": ["cka", "deconfounded", "neighbours"], "input_like_below": 0.02, "nearest": 10},
        on_gpu=True,
    )

    probe: str = Field(description="digest of the probe part")
    images: int = Field(description="n, the number of probe images")
    layers: tuple[Layer, ...]
    grams: Array = Field(description="float32 (L, n(n+1)/2): upper triangles, diagonal included, of the centred Grams")
    cka: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros for a layer that is not indexed")
    deconfounded: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros likewise, and where input_like")
    neighbours: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros likewise")

    def headline(self) -> Headline:
        """Return how many layers there are, and how many of them can be compared."""
        return {"layers": len(self.layers), "comparable": sum(layer.state == "ok" for layer in self.layers)}
