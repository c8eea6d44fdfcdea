"""The product `description`."""

from __future__ import annotations

import re
import textwrap
from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.product import Declaration, Product, ProductPart
from layerscope.schemas.products.reference_layers import ReferenceLayers

Language = Literal["en", "ko"]
Confidence = Literal["calibrated", "overconfident", "underconfident", "unknown"]
Answers = Literal["meaningful", "constant", "at_chance"]


class DescribedConfusion(ProductPart):
    """The most frequent confusion; names as in the texts, without control characters and cut to their length."""

    true_name: str
    predicted_name: str
    images: int
    rate: float = Field(description="share of the true class's images")


class DescriptionFacts(ProductPart):
    """All that a text about one model may tell; every number in it is one of these, or a rounding of one."""

    images: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    interval: float = Field(default=0.95, description="what accuracy_low and accuracy_high enclose")
    non_finite: int = Field(description="images whose outputs are not finite")
    answers: Answers = Field(
        default="meaningful",
        description="constant: one class for (nearly) all images; at_chance: right no more often than by chance. Of neither "
        "is there anything to say of confusions or confidence",
    )
    constant_class: str | None = Field(default=None, description="what all images are answered as")
    chance: float | None = Field(default=None, description="accuracy of the same answers dealt out without looking")
    confidence: Confidence = Field(description="calibrated: ece is at most noise_floor_95; else by the sign of the gap")
    ece: float | None = None
    noise_floor_95: float | None = None
    confusion: DescribedConfusion | None = Field(description="null: no image of one class was predicted as another")
    layers: int
    layers_constant: int = Field(description="layers that answer every probe image alike")
    layers_non_finite: int
    layers_unbatched: int
    layers_input_like: int
    unwell_layer: str | None = Field(description="the first layer that is constant or not finite")
    unwell_type: str | None = Field(default=None, description="its type")
    clearest_layer: str | None = Field(description="the layer most like the labels")
    clearest_type: str | None = Field(default=None, description="its type")
    clearest_label_cka: float | None
    label_baseline: float | None = Field(
        default=None,
        description="what likeness to the labels the images' pixels and 95 % of the layers of untrained networks stay "
        "below: up to it no layer separates the classes; null: not known",
    )


class DescriptionText(ProductPart):
    """A few sentences in one language."""

    language: Language
    text: str
    written_by: str = Field(description="`template`, or the name of the language model")


class Description(Product):
    """A model in two or three sentences; who wrote them is always said."""

    declared: ClassVar = Declaration(
        "description",
        recipe=4,
        inputs=(Evaluation, ConfusionMatrix, LayerVectors, ReferenceLayers),
        parameters={"languages": ["en", "ko"], "name_length": 40},
    )

    facts: DescriptionFacts
    texts: tuple[DescriptionText, ...] = Field(description="one a language, English first")

    def headline(self) -> Headline:
        """Return the first sentence of the English text, and who wrote it."""
        english = next(one for one in self.texts if one.language == "en")
        first = re.split(r"(?<=[.!?])\s", english.text, maxsplit=1)[0]
        return {"text": textwrap.shorten(first, 200, placeholder=" …"), "written_by": english.written_by}
