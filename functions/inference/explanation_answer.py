"""What the worker found about a test image, in the words of the answer, with maps laid over the image."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerscope.functions.inference.answer import data_uri, nearest_of
from layerscope.functions.inference.call import ClassMap, Explained
from layerscope.functions.inference.stored_model import StoredModel
from layerscope.schemas.explanations import (
    ALIKE,
    EXPLANATION_RECIPE,
    Attribution,
    ClassAttribution,
    Control,
    ExplanationAnswer,
)

_INK: Final = np.array((230, 97, 1), np.float64)
_OPACITY: Final = 0.85
_LUMA: Final = np.array((0.299, 0.587, 0.114))


def explanation_of(model: StoredModel, index: int, pixels: NDArray[np.uint8], made: Explained) -> ExplanationAnswer:
    """Return the answer about one test image (H, W, C)."""
    identity, names = model.identity, model.description.classes
    return ExplanationAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        content=model.content,
        recipe=EXPLANATION_RECIPE,
        index=index,
        label=made.label,
        label_name=names[made.label],
        predicted=made.predicted if made.predicted >= 0 else None,
        predicted_name=names[made.predicted] if made.predicted >= 0 else None,
        nearest=nearest_of(model, made.near),
        attribution=_attribution(names, pixels, made) if made.attributed else None,
        attribution_reason=made.reason,
        device=made.device,
    )


def overlay(pixels: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image (H, W, C) in grey under the positive values (h, w) of a map in orange, RGB uint8 (H, W, 3)."""
    height, width, channels = pixels.shape
    grey = pixels @ _LUMA if channels == 3 else pixels.mean(axis=2)
    raised = np.maximum(values, 0)
    highest = float(raised.max())
    share = np.zeros_like(raised) if not np.isfinite(highest) or highest == 0 else raised / highest
    large = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR), np.float64)
    opacity = _OPACITY * np.clip(large, 0, 1)[..., None]
    mixed: NDArray[np.uint8] = np.rint(grey[..., None] * (1 - opacity) + _INK * opacity).astype(np.uint8)
    return mixed


def control_says(correlations: tuple[float | None, ...]) -> tuple[float | None, str]:
    """Return the mean rank correlation with networks of new weights, and what follows from it."""
    there = [one for one in correlations if one is not None]
    if not there:
        return None, "With new weights the map is the same everywhere, so the two cannot be held against each other."
    mean = sum(there) / len(there)
    many = len(there) > 1
    who = (
        f"{len(there)} networks of this architecture with new weights"
        if many
        else "One network of this architecture with new weights"
    )
    figure = f"{'mean ' if many else ''}rank correlation {mean:.2f}"
    if mean >= ALIKE:
        verb = "give" if many else "gives"
        return (
            mean,
            f"{who} {verb} much the same map ({figure}, {ALIKE} or more): it says little of what this model learned.",
        )
    other = "give other maps" if many else "gives another map"
    return mean, f"{who} {other} ({figure}, below {ALIKE}): this one depends on the weights."


def _attribution(names: tuple[str, ...], pixels: NDArray[np.uint8], made: Explained) -> Attribution:
    found = made.attributed
    assert found is not None
    height, width = found.classes[0].map.shape
    return Attribution(
        method="grad_cam" if found.place else "integrated_gradients",
        layer=found.place.layer if found.place else None,
        call=found.place.call if found.place else None,
        steps=found.steps,
        height=height,
        width=width,
        classes=tuple(_class(names, pixels, made, one) for one in found.classes),
    )


def _class(names: tuple[str, ...], pixels: NDArray[np.uint8], made: Explained, one: ClassMap) -> ClassAttribution:
    mean, says = control_says(one.correlations)
    if not (one.map > 0).any():
        says = "No place raises the score of this class, so nothing is shown."
    return ClassAttribution(
        label=one.label,
        name=names[one.label],
        is_predicted=one.label == made.predicted,
        is_true=one.label == made.label,
        low=float(one.map.min()),
        high=float(one.map.max()),
        picture=data_uri(overlay(pixels, one.map)),
        control=Control(
            correlations=one.correlations,
            mean=mean,
            picture=data_uri(overlay(pixels, one.control)),
            depends_on_weights=None if mean is None else mean < ALIKE,
            says=says,
        ),
    )
