"""What a text about a hit stands on: two models, the layers of theirs that match, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from layerscope.functions.analysis.paired import RightAlone
from layerscope.functions.analysis.wording.facts import BEYOND, harmless
from layerscope.schemas.products.description import DescriptionFacts
from layerscope.schemas.products.layer_vectors import Layer, Metric
from layerscope.schemas.products.summary import SummaryLayer

LARGE: Final = 0.5
"""Two layers are said to be alike only from this score on, besides exceeding BEYOND of the untrained layers.

A score is a correlation over pairs of images, and 0.5 is what Cohen (1988, p. 80) calls a large one."""


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
    network: tuple[SummaryLayer, ...] = ()
    with_dataset: bool = False
    """Whether its name says of which dataset it is: two models of two datasets often have one name."""

    @property
    def dataset(self) -> str:
        """Return what its dataset is called in a text."""
        return harmless(self.subject.partition("/")[0])

    @property
    def name(self) -> str:
        """Return what the model is called in a text."""
        return harmless(self.subject if self.with_dataset else self.subject.partition("/")[2])

    @property
    def layer_name(self) -> str:
        """Return what its layer is called in a text."""
        return harmless(self.compared.layer.id)

    @property
    def layer_type(self) -> str:
        """Return what kind of layer it is, in a text."""
        return harmless(self.compared.layer.type)


@dataclass(frozen=True, slots=True)
class BestMatch:
    """Two layers that stand for each other where two models are matched in order; percentile among untrained layers."""

    a: str
    b: str
    score: float
    percentile_untrained: float | None


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """Two similar layers of two models, as a search found them, and the best matches of all layers of the two.

    Percentiles are among untrained layers, nearly all of which have a score below `untrained_bound`; `interval` is
    where 95 % of random halves of the images put the score. `label_baselines` are what the likeness of each layer to
    the labels has to exceed: what the images' pixels and nearly all untrained layers have. None: too few of them are there.
    `alone` is None where the answers of the two to the same test images are not there.
    """

    a: ComparedModel
    b: ComparedModel
    metric: Metric
    score: float
    z: float | None
    alone: RightAlone | None = None
    percentile_untrained: float | None = None
    percentile_untrained_by_other_metric: float | None = None
    label_baselines: tuple[float | None, float | None] = (None, None)
    untrained_layers: int | None = None
    untrained_bound: float | None = None
    interval: tuple[float, float] | None = None
    best_matches: tuple[BestMatch, ...] = ()

    @property
    def beyond_untrained(self) -> bool | None:
        """Tell whether the two are more alike than nearly all untrained layers are; None: not known."""
        return None if self.percentile_untrained is None else self.percentile_untrained >= BEYOND

    @property
    def alike(self) -> bool | None:
        """Tell whether the two may be called alike: beyond untrained layers, on every half of the images, and by much.

        None: not known, for want of untrained layers.
        """
        if not self.beyond_untrained:
            return self.beyond_untrained
        firm = self.interval is None or self.untrained_bound is None or self.interval[0] > self.untrained_bound
        return firm and self.score >= LARGE

    @property
    def same_test_images(self) -> bool:
        """Tell whether the two are of one dataset: only then do their accuracies say which is better."""
        return self.a.subject.partition("/")[0] == self.b.subject.partition("/")[0]

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
        """Return the model that is less accurate on the same test images, by more than chance; None: neither is shown to be.

        Held image by image: whether the intervals of two accuracies overlap does not tell that of the same images.
        """
        if not self.same_test_images or self.alone is None or self.alone.better is None:
            return None
        return "a" if self.alone.better == "b" else "b"
