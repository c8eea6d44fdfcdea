"""What a text about a hit stands on: two models, the layers of theirs that match, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from layerscope.functions.analysis.wording.facts import harmless
from layerscope.schemas.products.description import DescriptionFacts
from layerscope.schemas.products.layer_vectors import Layer, Metric

BEYOND: Final = 0.95
"""From this share of the untrained layers on, two layers are said to be alike."""


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
    """Two similar layers of two models, as a search found them.

    Percentiles are among untrained layers; `label_baselines` are what the likeness of each layer to the labels has to
    exceed: what the images' pixels and nearly all untrained layers have. None: too few of them are there.
    """

    a: ComparedModel
    b: ComparedModel
    metric: Metric
    score: float
    z: float
    percentile_untrained: float | None = None
    percentile_untrained_by_other_metric: float | None = None
    label_baselines: tuple[float | None, float | None] = (None, None)

    @property
    def beyond_untrained(self) -> bool | None:
        """Tell whether the two are more alike than nearly all untrained layers are; None: not known."""
        return None if self.percentile_untrained is None else self.percentile_untrained >= BEYOND

    @property
    def both_separate_classes(self) -> bool:
        """Tell whether both layers are more like the labels than their baselines."""
        likeness = (self.a.compared.layer.label_cka, self.b.compared.layer.label_cka)
        return all(
            mine is not None and base is not None and mine > base
            for mine, base in zip(likeness, self.label_baselines, strict=True)
        )

    @property
    def weaker(self) -> Literal["a", "b"] | None:
        """Return the model of lower accuracy; None where the intervals overlap."""
        a, b = self.a.facts, self.b.facts
        if max(a.accuracy_low, b.accuracy_low) <= min(a.accuracy_high, b.accuracy_high):
            return None
        return "a" if a.accuracy < b.accuracy else "b"
