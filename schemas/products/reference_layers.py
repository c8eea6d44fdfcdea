"""The product `reference_layers`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors
from layerscope.schemas.products.product import Declaration, Product, ProductPart


class ReferenceLayer(ProductPart):
    """One layer of an untrained network, and where it lies in it."""

    network: int = Field(description="which of the untrained networks, from 0")
    depth: float = Field(description="0: the first weight layer of the forward pass, 1: the last")
    layer: Layer


class ReferenceLayers(Product):
    """Layers of untrained networks of this model's architecture: what a similarity of its dataset is judged against.

    Each network has the model's graph and new random weights, as PyTorch initialises every type of layer. There are
    as many of them, up to `networks`, as have `layers_kept` layers together; of a larger architecture there is one, and
    `layers_kept` of its layers, evenly over depth, stand for all.
    """

    declared: ClassVar = Declaration(
        "reference_layers",
        recipe=2,
        reads_model=True,
        parts=("probe",),
        parameters={
            "networks": 4,
            "layers_kept": 48,
            "input_like_below": LayerVectors.declared.parameters["input_like_below"],
        },
        seed=0,
    )

    probe: str = Field(description="digest of the probe part")
    images: int = Field(description="n, the number of probe images")
    label_cka_of_pixels: float | None = Field(
        description="debiased CKA of the images themselves with the one-hot labels: what a layer has to exceed"
    )
    layers: tuple[ReferenceLayer, ...]
    grams: Array = Field(description="float32 (L, n(n+1)/2): upper triangles, diagonal included, of the centred Grams")
    cka: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros for a layer that cannot be compared")
    deconfounded: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros likewise, and where input_like")
    neighbours: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros likewise")
    inputs: Array = Field(description="float32 (1, n(n-1)/2): the same unit vector of the probe images themselves")

    def headline(self) -> Headline:
        """Return how many untrained layers there are, and how many of them can be compared."""
        return {"layers": len(self.layers), "comparable": sum(one.layer.state == "ok" for one in self.layers)}
