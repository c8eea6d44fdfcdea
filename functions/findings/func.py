"""Findings: what is wrong with a model, in order, with the evidence and what to do, from its other products alone."""

from __future__ import annotations

from typing import Final

import numpy as np

from layerscope.functions.analysis.wording.facts import harmless
from layerscope.functions.findings import english, korean
from layerscope.functions.findings.english import Named, Sentences
from layerscope.functions.findings.evidence import Evidence, Found
from layerscope.functions.findings.rules import look
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.findings import Finding, Findings, FindingText
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores.datasets import Dataset

SHOWN: Final[int] = Findings.declared.parameters["images"]


def compute(
    predictions: Predictions,
    evaluation: Evaluation,
    preprocessing: Preprocessing | None,
    layer_vectors: LayerVectors | None,
    feature_activation: FeatureActivation | None,
    training_history: TrainingHistory | None,
    dataset: Dataset,
) -> Findings:
    """Apply every rule, and say in words what fired; None is a product that this model cannot have."""
    evidence = Evidence(
        predictions, evaluation, dataset, preprocessing, layer_vectors, feature_activation, training_history
    )
    found, checks, means_something = look(evidence)
    checked = sum(one.state != "not_checked" for one in checks)
    cost = found[0].cost if found else 0.0
    words = {"en": english.summary, "ko": korean.summary}
    return Findings(
        findings=tuple(_told(one, dataset.description.classes) for one in found),
        checks=tuple(checks),
        answers_mean_something=means_something,
        all_images=np.array([place for one in found for place in one.images], np.int32),
        summary=tuple(_text(language, words[language](len(found), checked, cost)) for language in _languages()),
    )


def _told(found: Found, classes: tuple[str, ...]) -> Finding:
    named = Named(found, tuple(harmless(classes[one]) for one in found.classes))
    sentences = {"en": english.SENTENCES, "ko": korean.SENTENCES}
    return Finding(
        kind=found.kind,
        cost=found.cost,
        figures={name: float(value) for name, value in found.figures.items()},
        classes=found.classes,
        layers=found.layers,
        images=found.images[:SHOWN],
        total=len(found.images),
        rests_on=found.rests_on,
        texts=tuple(_text(language, sentences[language][found.kind](named)) for language in _languages()),
    )


def _languages() -> tuple[Language, ...]:
    return tuple(Findings.declared.parameters["languages"])


def _text(language: Language, sentences: Sentences) -> FindingText:
    title, text, action = sentences
    return FindingText(language=language, title=title, text=text, action=action)


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(Findings, compute, imports=("scipy.stats", "scipy.optimize"))
