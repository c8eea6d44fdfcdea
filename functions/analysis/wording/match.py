"""What a text about a hit stands on: two models, the layers of theirs that match, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layerscope.functions.analysis.wording.facts import harmless
from layerscope.schemas.products.description import DescriptionFacts
from layerscope.schemas.products.layer_vectors import Layer, Metric


@dataclass(frozen=True, slots=True)
class ComparedLayer:
    """One of the two layers; `position` counts from 1."""

    layer: Layer
    position: int


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One of the two models; sizes are None where there is no summary."""

    subject: str
    facts: DescriptionFacts
    compared: ComparedLayer
    parameters: int | None = None
    multiply_adds: int | None = None

    @property
    def name(self) -> str:
        """Return what the model is called in a text."""
        return harmless(self.subject.partition("/")[2])

    @property
    def layer_name(self) -> str:
        """Return what its layer is called in a text."""
        return harmless(self.compared.layer.id)

    @property
    def layer_type(self) -> str:
        """Return what kind of layer it is, in a text."""
        return harmless(self.compared.layer.type)


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """Two similar layers of two models, as a search found them."""

    a: ComparedModel
    b: ComparedModel
    metric: Metric
    score: float
    z: float

    @property
    def weaker(self) -> Literal["a", "b"] | None:
        """Return the model of lower accuracy; None where the intervals overlap."""
        a, b = self.a.facts, self.b.facts
        if max(a.accuracy_low, b.accuracy_low) <= min(a.accuracy_high, b.accuracy_high):
            return None
        return "a" if a.accuracy < b.accuracy else "b"
