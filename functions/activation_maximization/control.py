"""The same recipe on the network with new weights: what of a picture comes of the recipe and the architecture alone.

A picture proves nothing by itself: much of it may follow from how it was made (Adebayo et al. 2018, arXiv 1810.03292). Both
networks are held to one standard that neither was told of, the labels: whether the test image nearest to the picture of a
class, by the network's own features, is of that class. Two networks with new weights differ one way as often as the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from layerscope.functions.activation_maximization.ascent import Recipe, pictures_of
from layerscope.functions.activation_maximization.nearest import nearest_images
from layerscope.functions.activation_maximization.objectives import ScoredModel
from layerscope.functions.activation_maximization.prior import Prior
from layerscope.functions.analysis.cuts import without_softmax
from layerscope.functions.analysis.inference import Classifier, Images
from layerscope.functions.analysis.paired import LEVEL, mcnemar
from layerscope.functions.analysis.untrained import untrained
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.products.activation_maximization import Control, Verdict
from layerscope.stores.datasets import PartArrays


@dataclass(frozen=True, slots=True, eq=False)
class Controls:
    """Pictures (P, H, W, C) made of the network with new weights, and the test image nearest to each; -1: none is."""

    pictures: Images
    nearest: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Controlled:
    """What the model's own pictures were made of and by: its scores, the prior, the recipe, and how many images are searched."""

    scores: ScoredModel
    classifier: Classifier
    prior: Prior
    recipe: Recipe
    searched: int


def controls(model: SafeModel, given: Controlled, targets: Sequence[int], test: PartArrays) -> Controls:
    """Return the pictures that the recipe makes for these targets of the network with new weights."""
    with torch.inference_mode(False):  # weights that are drawn inside it are barred from autograd
        drawn = untrained(model, given.recipe.seed)
    assert isinstance(drawn, SafeModel)
    scores, classifier = replace(given.scores, model=without_softmax(drawn)), replace(given.classifier, model=drawn)
    made = pictures_of(scores, targets, given.prior, classifier, given.recipe)
    return Controls(made, nearest_images(made, drawn, classifier, test, given.searched).indices)


def held_against(own: Sequence[int], control: Sequence[int], classes: int, labels: NDArray[np.int64]) -> Control:
    """Return how often the image nearest to the picture of a class is of that class, of the first `classes` of each.

    Args:
        own: the test images nearest to the model's pictures; -1: none is.
        control: the same of the network with new weights.
        classes: how many classes have both.
        labels: of the test part (N,).
    """
    ours, theirs = (
        [at >= 0 and int(labels[at]) == target for target, at in enumerate(some[:classes])] for some in (own, control)
    )
    only_own = sum(mine and not other for mine, other in zip(ours, theirs, strict=True))
    only_control = sum(other and not mine for mine, other in zip(ours, theirs, strict=True))
    p_value = mcnemar(only_own, only_control)
    verdict: Verdict = "beyond" if p_value <= LEVEL and only_own > only_control else "not_beyond"
    if mcnemar(classes, 0) > LEVEL:
        verdict = "too_few"
    return Control(classes=classes, own=sum(ours), control=sum(theirs), p_value=p_value, verdict=verdict)
