"""Finished pictures, as rows of the product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.activation_maximization.measurements import Measurements
from layerscope.functions.activation_maximization.objectives import Objective
from layerscope.functions.analysis.cuts import LastConvolution
from layerscope.functions.analysis.outputs import log_probabilities
from layerscope.schemas.products.activation_maximization import (
    ChannelLayer,
    ClassPicture,
    ControlPicture,
    OptimisedPicture,
)
from layerscope.schemas.products.sprites import Place, SheetImage
from layerscope.stores.datasets import Dataset


def class_pictures(
    found: Measurements,
    nearest: Sequence[int],
    dataset: Dataset,
    places: Sequence[Place],
    controls: Sequence[Place],
    objective: Objective,
) -> tuple[ClassPicture, ...]:
    """Return what the product says of the pictures of the first classes, which are the first pictures; `controls`: theirs."""
    names = dataset.description.classes
    rows = []
    for target, place in enumerate(places):
        seen, shifts = found.scores[target, : len(names)], found.shifted[:, target, : len(names)]
        recognised = np.isfinite(shifts).all(1) & (shifts.argmax(1) == target)
        control = (
            _class_control(found, target, controls[target], len(names), objective) if target < len(controls) else None
        )
        rows.append(
            ClassPicture(
                **{
                    **dict(_picture(found, nearest[target], dataset, place, target, target, target)),
                    "control": control,
                },
                name=names[target],
                probability=_probability(seen[None], target, objective),
                predicted=int(seen.argmax()) if np.isfinite(seen).all() else None,
                shifted_probability=_probability(shifts, target, objective),
                shifted_recognised=float(recognised.mean()),
            )
        )
    return tuple(rows)


def channel_pictures(
    found: Measurements, nearest: Sequence[int], dataset: Dataset, places: Sequence[Place], controls: Sequence[Place]
) -> tuple[OptimisedPicture, ...]:
    """Return what the product says of the pictures of the first channels, which are the last pictures; `controls`: of all."""
    before, classes = len(found.scores) - len(places), len(dataset.description.classes)
    rows = []
    for channel, place in enumerate(places):
        row, column = before + channel, classes + channel
        one = _picture(found, nearest[row], dataset, place, channel, row, column)
        if row < len(controls):
            score = _finite(found.control_scores[row, column])
            one = one.model_copy(update={"control": ControlPicture(score=score, place=controls[row])})
        rows.append(one)
    return tuple(rows)


def channel_layer(found: LastConvolution | None) -> ChannelLayer | None:
    """Return what the product says of the layer whose channels have pictures."""
    if found is None:
        return None
    return ChannelLayer(name=found.name, call=found.call, measured=found.measured, channels=found.channels)


def _picture(
    found: Measurements, index: int, dataset: Dataset, place: Place, target: int, row: int, column: int
) -> OptimisedPicture:
    label = int(dataset.part("test").labels[index])
    return OptimisedPicture(
        target=target,
        score=_finite(found.scores[row, column]),
        shifted_score=_mean(found.shifted[:, row, column]),
        nearest=SheetImage(index=index, label=label, place=place) if index >= 0 else None,
        nearest_score=_finite(found.nearest_scores[row, column]) if index >= 0 else None,
        place=place,
    )


def _class_control(
    found: Measurements, target: int, place: Place, classes: int, objective: Objective
) -> ControlPicture:
    seen = found.control_scores[target, :classes]
    return ControlPicture(
        score=_finite(seen[target]), probability=_probability(seen[None], target, objective), place=place
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if np.isfinite(values).all() else None


def _probability(rows: NDArray[np.float32], target: int, objective: Objective) -> float | None:
    """Return the mean probability of a class over rows (n, classes); None where one is not finite."""
    if not np.isfinite(rows).all():
        return None
    return float(np.exp(log_probabilities(rows, objective))[:, target].mean())
