"""Activation maximization: pictures of what classes and channels respond to, next to images of the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.functions.analysis.images import sprite_sheet
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.activation_maximization import ActivationMaximization
from layerscope.stores.datasets import Dataset

if TYPE_CHECKING:
    from layerscope.models.safe_form import SafeModel


def compute(model: SafeModel, dataset: Dataset, device: str) -> ActivationMaximization:
    """Make the pictures and their controls, look at them as they will be stored, and find the test image nearest to each.

    Raises:
        Refused: the model does not fit the dataset, or has no gradient.
    """
    # torch is imported in the worker only
    from layerscope.functions.activation_maximization.ascent import Recipe, pictures_of
    from layerscope.functions.activation_maximization.capacity import capacity, cost_of_one
    from layerscope.functions.activation_maximization.control import Controlled, controls, held_against
    from layerscope.functions.activation_maximization.gallery import channel_layer, channel_pictures, class_pictures
    from layerscope.functions.activation_maximization.measurements import measure
    from layerscope.functions.activation_maximization.nearest import nearest_images
    from layerscope.functions.activation_maximization.objectives import scores_of
    from layerscope.functions.activation_maximization.prior import prior_of, spread
    from layerscope.functions.analysis.inference import fit
    from layerscope.functions.analysis.searched_images import affordable_images

    limits, seed = ActivationMaximization.declared.parameters, ActivationMaximization.declared.seed or 0
    test = dataset.part("test")
    images = test.images
    shape, names = dataset.description.shape, dataset.description.classes
    classifier = fit(model, images, dataset.description, device)
    scores = scores_of(classifier, model, images)
    layer = scores.layer
    one = cost_of_one(classifier, images)
    most = capacity(shape[0] * shape[1], one, limits["pixels"], limits["multiply_adds"] // limits["steps"])
    classes = min(len(names), limits["classes"], most)
    channels = min(layer.channels, limits["channels"], most - classes) if layer else 0
    recipe = Recipe("maco", limits["steps"], max(1, round(min(shape[:2]) / limits["shift_of"])), seed)
    targets = scores.targets(range(classes), range(channels))
    prior = prior_of(spread(images, limits["sampled"]), device)
    made = pictures_of(scores, targets, prior, classifier, recipe)
    searched = affordable_images(min(len(test), limits["searched"]), limits["multiply_adds"], one)
    nearest = nearest_images(made, model, classifier, test, searched)
    beside = nearest.images(images)
    controlled = targets[: max(1, int(most * limits["controlled"]))]
    others = controls(model, Controlled(scores, classifier, prior, recipe, searched), controlled, test)
    figures = measure(scores, made, beside, others.pictures, classifier, recipe.shift)
    pictures, places = sprite_sheet(made)
    sheet, control_places = sprite_sheet(others.pictures)
    return ActivationMaximization(
        method="maco",
        objective=scores.objective,
        shift=recipe.shift,
        classes=class_pictures(figures, nearest.indices, dataset, places[:classes], control_places, scores.objective),
        classes_left_out=len(names) - classes,
        layer=channel_layer(layer),
        channels=channel_pictures(figures, nearest.indices, dataset, places[classes:], control_places),
        channels_left_out=layer.channels - channels if layer else 0,
        nearest_layer=nearest.layer,
        searched=nearest.searched,
        control=held_against(nearest.indices, others.nearest, min(classes, len(controlled)), test.labels),
        pictures=pictures,
        nearest_images=sprite_sheet(beside)[0],
        controls=sheet,
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(ActivationMaximization, compute)
