"""The product `findings`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Array
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.schemas.products.product import Declaration, Product, ProductPart
from layerscope.schemas.products.training_history import TrainingHistory

FindingKind = Literal[
    "outputs_not_finite",
    "constant_answer",
    "labels_permuted",
    "prepared_otherwise",
    "accuracy_at_chance",
    "classes_never_answered",
    "class_absorbs_errors",
    "weak_classes",
    "confused_pairs",
    "weak_segment",
    "labels_suspect",
    "labels_conflict",
    "test_images_in_train",
    "near_duplicates",
    "near_duplicates_in_train",
    "test_imbalanced",
    "train_imbalanced",
    "overfitted",
    "undertrained",
    "layers_dead",
    "channels_dead",
    "channels_constant",
    "overconfident",
    "underconfident",
]
"""What may be wrong with a model, or with the images and labels that it is measured by."""


class FindingText(ProductPart):
    """What a finding says in one language."""

    language: Language
    title: str
    text: str = Field(description="what was found, with its figures and what they are held against")
    action: str = Field(description="what to do about it")


class Finding(ProductPart):
    """A rule that fired: what is wrong, the evidence, and what to do."""

    kind: FindingKind
    cost: float = Field(description="share of the test images that it makes wrong; 0 where it costs no accuracy")
    figures: dict[str, float] = Field(description="every number of the texts, by name")
    classes: tuple[int, ...] = Field(default=(), description="indices of the classes that it is about")
    layers: tuple[str, ...] = Field(default=(), description="names of the layers that it is about")
    images: tuple[int, ...] = Field(
        default=(), description="the first of the test images that show it, the clearest first"
    )
    total: int = Field(default=0, description="how many show it: so many of `all_images` are this finding's")
    rests_on: str = Field(description="the product that has the evidence")
    texts: tuple[FindingText, ...] = Field(description="one a language, English first")


class Check(ProductPart):
    """What a rule came to."""

    kind: FindingKind
    state: Literal["found", "clear", "not_checked"]
    reason: str = Field(default="", description="why it was not checked")


class Findings(Product):
    """What is wrong with the model: rules over its other products, in the order of what they cost in accuracy.

    Each rule has a baseline: what chance alone, or a model without the fault, leads to. Where the answers are constant or
    at chance, no rule says anything of confusions, confidence or single classes.
    """

    declared: ClassVar = Declaration(
        "findings",
        recipe=2,
        parts=("test",),
        optional_parts=("train",),
        inputs=(Predictions, Evaluation),
        optional=(Preprocessing, LayerVectors, FeatureActivation, TrainingHistory),
        parameters={"languages": ["en", "ko"], "images": 60, "name_length": 40},
        seed=0,
    )

    findings: tuple[Finding, ...] = Field(description="most costly first")
    checks: tuple[Check, ...] = Field(description="every rule, in one order")
    answers_mean_something: bool = Field(
        description="false where all images get one answer, or answers agree with the labels no more than by chance"
    )
    summary: tuple[FindingText, ...] = Field(description="what was found in a sentence, one a language")
    all_images: Array = Field(description="int32 (M,): indices of the test images that show a finding, in their order")

    def headline(self) -> Headline:
        """Return how many findings there are, the first one's title and kind, and whether answers mean something."""
        first = self.findings[0] if self.findings else None
        return {
            "findings": len(self.findings),
            "first": first.texts[0].title if first else None,
            "first_kind": first.kind if first else None,
            "answers_mean_something": self.answers_mean_something,
        }
