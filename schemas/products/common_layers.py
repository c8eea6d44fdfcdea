"""The product `common_layers`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.product import Declaration
from layerscope.schemas.products.reference_layers import ReferenceLayer, ReferenceLayers


class CommonLayers(LayerVectors):
    """What makes layers of models on different datasets comparable: `layer_vectors` over images that these share.

    Of the common probe set of the dataset's image shape, up to `images` are taken, evenly from the first to the last;
    each model is given them as its own dataset's images are. They have no labels. `untrained` are layers of untrained
    networks of the model's architecture, as in `reference_layers`: what a likeness is judged against.
    """

    declared: ClassVar = Declaration(
        "common_layers",
        recipe=2,
        reads_model=True,
        parts=("common",),
        parameters={
            **LayerVectors.declared.parameters,
            "images": 100,
            **{
                name: ReferenceLayers.declared.parameters[name] for name in ("networks", "multiply_adds", "layers_kept")
            },
        },
        seed=0,
    )

    probe: str = Field(description="SHA-256 of the common probe set: only vectors over the same one can be compared")
    images: int = Field(description="n, the number of images taken of it")
    untrained: tuple[ReferenceLayer, ...]
    untrained_grams: Array = Field(description="float32 (U, n(n+1)/2), as `grams`, of the untrained layers")
    untrained_cka: Array = Field(description="float32 (U, n(n-1)/2): likewise")
    untrained_deconfounded: Array = Field(description="float32 (U, n(n-1)/2): likewise")
    untrained_neighbours: Array = Field(description="float32 (U, n(n-1)/2): likewise")
    inputs: Array = Field(description="float32 (1, n(n-1)/2): the same unit vector of the images themselves")
    input_gram: Array = Field(description="float32 (1, n(n+1)/2): the same upper triangle, of the images themselves")
