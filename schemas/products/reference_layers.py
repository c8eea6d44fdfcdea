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
    position: int = Field(description="which of the network's layers, from 0, in the order of the forward pass")
    depth: float = Field(description="0: the first weight layer of the forward pass, 1: the last")
    layer: Layer


class ReferenceLayers(Product):
    """Layers of untrained networks of this model's architecture: what a similarity of its dataset is judged against.

    Each network has the model's graph and new random weights, as PyTorch initialises every type of layer. There are
    `networks` of them, or as many as `multiply_adds` allow over all images, one at least. Of each, up to `layers_kept`
    layers stand for all, evenly over depth. With the model as one more network of 21, one that is not trained either is
    the most like another model of all in one case of 21: that is what 0.95 means.
    """

    declared: ClassVar = Declaration(
        "reference_layers",
        recipe=3,
        reads_model=True,
        parts=("probe",),
        parameters={
            "networks": 20,
            "multiply_adds": 800_000_000_000,
            "layers_kept": 6,
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
    input_gram: Array = Field(
        description="float32 (1, n(n+1)/2): the same upper triangle, of the probe images themselves"
    )

    def headline(self) -> Headline:
        """Return how many untrained layers there are, and how many of them can be compared."""
        return {"layers": len(self.layers), "comparable": sum(one.layer.state == "ok" for one in self.layers)}
