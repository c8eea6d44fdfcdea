"""The product `class_vectors`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.predictions import OutputKind
from layerscope.schemas.products.product import Declaration, Product, ProductPart

ClassState = Literal["ok", "constant", "non_finite"]


class ClassLine(ProductPart):
    """One class of the model, and whether it can be compared."""

    name: str
    state: ClassState = Field(
        description="only ok classes are indexed. constant: the model answers every image alike with it, relative to its "
        "other classes, or has no others; non_finite: an output is NaN or infinite"
    )
    deviation: float | None = Field(
        description="standard deviation over the images of the class's logit less the mean of all classes' logits; in nats"
    )


class ClassVectors(Product):
    """What each class of the model responds to, over images that all datasets of one image shape share.

    After ProbeLog (Kahana et al. 2025, arXiv 2502.09619): the inner product of two classes' vectors says how alike two
    models' outputs for them rise and fall from image to image, whatever the models were trained on. A class's vector is
    its logit less the mean logit of all classes on the same image, less its own mean over the images, of length one.
    `untrained` are those of networks of the model's architecture with new random weights: what a likeness is judged by;
    as many as `multiply_adds` allow over all images, one at least and `networks` at most.
    """

    declared: ClassVar = Declaration(
        "class_vectors",
        recipe=1,
        reads_model=True,
        parts=("common",),
        parameters={"networks": 4, "multiply_adds": 400_000_000_000, "batch": 64},
        seed=0,
    )

    probe: str = Field(description="SHA-256 of the common probe set: only vectors over the same one can be compared")
    images: int = Field(description="n, the number of its images")
    output_kind: OutputKind = Field(description="what the model returns, as told from these images")
    classes: tuple[ClassLine, ...] = Field(description="in the order of the outputs")
    networks: int = Field(description="number of untrained networks")
    vectors: Array = Field(description="float32 (C, n): unit vectors; zeros for a class that is not ok")
    untrained: Array = Field(description="float32 (networks, C, n): likewise of the untrained networks")

    def headline(self) -> Headline:
        """Return how many classes there are, and how many of them can be compared."""
        return {"classes": len(self.classes), "comparable": sum(one.state == "ok" for one in self.classes)}
