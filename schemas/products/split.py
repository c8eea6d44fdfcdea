"""The product `split`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart


class CarriedValue(ProductPart):
    """A value that is carried over a cut."""

    node: int = Field(description="the step of the graph that makes it")
    datatype: str = Field(description="as the Open Inference Protocol names it")
    shape: tuple[int, ...] = Field(description="for one image")
    bytes: int = Field(description="for one image")


class Segment(ProductPart):
    """What lies between two neighbouring cuts."""

    steps: int = Field(description="calls of layers, functions and methods")
    multiply_adds: int = Field(description="for one image")
    tensor_bytes: int = Field(description="of its parameters and buffers, as built")


class SplitCut(ProductPart):
    """A place at which the model can be cut."""

    after: int = Field(description="the last step of the graph before the cut, counted from 0")
    name: str = Field(description="the layer that the cut comes after, or the call and the layer before that")
    values: tuple[CarriedValue, ...]
    bytes: int = Field(description="that cross for one image")
    sha256: str = Field(description="of the values over all images in the whole model, with their shapes and layouts")
    equal: bool = Field(
        description="whether they were the same bit by bit after they had been sent as bytes at every cut"
    )


class Split(Product):
    """Where the model can be cut into stages that run elsewhere, what crosses there, and the proof that nothing changes.

    Cuts are found by liveness over the graph of calls, so that residual and branching networks have them too: listed is
    every place that one tensor crosses (and numbers beside it), or, where there is none, that the fewest tensors cross.
    In-place steps are made functional before. The proof: over `images` probe images the values at every cut, sent as
    bytes and received at all of them in turn, have the bits and the layout that they have in the whole model; so do the
    outputs. It holds for one device, batch and number of threads. After Kang et al. 2017 (Neurosurgeon).
    """

    declared: ClassVar = Declaration(
        "split",
        recipe=1,
        reads_model=True,
        parts=("probe",),
        parameters={"multiply_adds": 100_000_000_000, "batch": 16, "most_cuts": 256},
    )

    graph: str = Field(description="SHA-256 of the model's architecture: steps are counted in this one")
    device: str
    batch: int
    threads: int
    images: int = Field(description="as many probe images as `multiply_adds` allow, one at least")
    input_bytes: int = Field(description="of one image as the model is given it, float32; a quarter of it as pixels")
    sha256: str = Field(description="of the whole model's outputs over all images")
    equal: bool = Field(description="whether the outputs were the same bit by bit with all cuts")
    cuts: tuple[SplitCut, ...] = Field(description="in order")
    segments: tuple[Segment, ...] = Field(description="before the first cut, between each two, and after the last")

    def headline(self) -> Headline:
        """Return how many cuts there are, how many were proved, and whether the outputs stay the same."""
        return {"cuts": len(self.cuts), "equal_cuts": sum(one.equal for one in self.cuts), "equal": self.equal}
