"""What texts about a model may tell: the few facts that are taken from its products, with names made harmless."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from layerscope.functions.analysis.chance import Agreement, agreement
from layerscope.schemas.products.confusion_matrix import Confusion
from layerscope.schemas.products.description import Confidence, DescribedConfusion, Description, DescriptionFacts
from layerscope.schemas.products.evaluation import Calibration, Evaluation
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.schemas.products.reference_layers import ReferenceLayers

NAME_LENGTH: int = Description.declared.parameters["name_length"]
BEYOND = 0.95
"""Share of the untrained layers that a trained one has to exceed before anything is said of it."""
_QUOTES = str.maketrans("‘’“”«»„‚`", "'''''''''")


def facts_of(
    evaluation: Evaluation, worst: Confusion | None, layers: Sequence[Layer], label_baseline: float | None = None
) -> DescriptionFacts:
    """Gather what a text may tell of one model; `worst` is its most frequent confusion."""
    calibration = evaluation.calibration
    unwell = [layer for layer in layers if layer.state in ("constant", "non_finite")]
    clearest = max(layers, key=lambda layer: -1.0 if layer.label_cka is None else layer.label_cka, default=None)
    label_cka = clearest.label_cka if clearest else None
    found = agreement_of(evaluation)
    means_something = found is None or found.means_something
    constant = found.constant if found else None
    return DescriptionFacts(
        images=evaluation.images,
        correct=evaluation.correct,
        accuracy=evaluation.accuracy,
        accuracy_low=evaluation.accuracy_low,
        accuracy_high=evaluation.accuracy_high,
        non_finite=evaluation.non_finite,
        answers="meaningful" if means_something else "at_chance" if constant is None else "constant",
        constant_class=None if constant is None else harmless(evaluation.classes[constant].name),
        chance=round(found.chance, 6) if found and not means_something else None,
        confidence=_confidence(calibration) if means_something else "unknown",
        ece=calibration.ece if calibration and means_something else None,
        noise_floor_95=calibration.noise_floor_95 if calibration and means_something else None,
        confusion=_confusion(worst) if worst and means_something else None,
        layers=len(layers),
        layers_constant=sum(layer.state == "constant" for layer in layers),
        layers_non_finite=sum(layer.state == "non_finite" for layer in layers),
        layers_unbatched=sum(layer.state == "unbatched" for layer in layers),
        layers_input_like=sum(layer.input_like for layer in layers),
        unwell_layer=harmless(unwell[0].id) if unwell else None,
        unwell_type=harmless(unwell[0].type) if unwell else None,
        clearest_layer=harmless(clearest.id) if clearest and label_cka is not None else None,
        clearest_type=harmless(clearest.type) if clearest and label_cka is not None else None,
        clearest_label_cka=label_cka,
        label_baseline=label_baseline,
    )


def agreement_of(evaluation: Evaluation) -> Agreement | None:
    """Hold a model's answers against the labels by its figures alone; None where there are none of single classes."""
    if not evaluation.classes:
        return None
    support = [one.support for one in evaluation.classes]
    answered = [one.predicted for one in evaluation.classes]
    return agreement(support, answered, evaluation.correct, evaluation.accuracy_high)


def label_baseline(references: ReferenceLayers) -> float | None:
    """Return up to which likeness to the labels a layer does no more than the images' pixels or untrained networks do.

    None where neither is known.
    """
    untrained = [one.layer.label_cka for one in references.layers if one.layer.label_cka is not None]
    known = [references.label_cka_of_pixels] if references.label_cka_of_pixels is not None else []
    known += [float(np.quantile(untrained, BEYOND))] if untrained else []
    return round(max(known), 6) if known else None


def harmless(name: str) -> str:
    """Return a name without control, format and quotation characters, on one line, and no longer than asked for."""
    kept = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in name.translate(_QUOTES))
    words = " ".join(kept.split()) or "?"
    return words if len(words) <= NAME_LENGTH else words[: NAME_LENGTH - 1].rstrip() + "…"


def _confidence(calibration: Calibration | None) -> Confidence:
    if calibration is None:
        return "unknown"
    if calibration.ece <= calibration.noise_floor_95:
        return "calibrated"
    gap = sum(one.images * ((one.confidence or 0.0) - (one.accuracy or 0.0)) for one in calibration.bins)
    return "overconfident" if gap > 0 else "underconfident"


def _confusion(worst: Confusion) -> DescribedConfusion:
    return DescribedConfusion(
        true_name=harmless(worst.true_name),
        predicted_name=harmless(worst.predicted_name),
        images=worst.images,
        rate=worst.rate,
    )
