"""What the rules look at, and what they return: answers and labels of the test part, and the products that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.outputs import finite_rows, log_probabilities, predicted_classes
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.findings import FindingKind
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores.datasets import Dataset

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evidence:
    """A model's answers on the test part, N images and C classes, and what else is known of it."""

    predictions: Predictions
    evaluation: Evaluation
    dataset: Dataset
    preprocessing: Preprocessing | None = None
    layer_vectors: LayerVectors | None = None
    feature_activation: FeatureActivation | None = None
    training_history: TrainingHistory | None = None

    @cached_property
    def labels(self) -> Integers:
        """Return the true classes (N,)."""
        return self.dataset.part("test").labels

    @cached_property
    def predicted(self) -> Integers:
        """Return the classes that the model answers (N,); -1 where its outputs are not finite."""
        return predicted_classes(self.predictions.outputs)

    @cached_property
    def right(self) -> Flags:
        """Return which images are right (N,)."""
        return np.asarray(self.predicted == self.labels)

    @property
    def images(self) -> int:
        """Return N."""
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Return C."""
        return len(self.dataset.description.classes)

    @cached_property
    def counts(self) -> Integers:
        """Return how many images of each class (row) were answered as each (column), (C, C)."""
        told = self.predicted >= 0
        places = self.labels[told] * self.classes + self.predicted[told]
        return np.bincount(places, minlength=self.classes**2).reshape(self.classes, self.classes)

    @cached_property
    def support(self) -> Integers:
        """Return the number of images of each class (C,)."""
        return np.bincount(self.labels, minlength=self.classes)

    def probabilities(self, images: NDArray[np.int64]) -> Floats:
        """Return the probabilities (n, C) of these images, whose outputs must be finite."""
        return np.exp(log_probabilities(self.predictions.outputs[images], self.predictions.output_kind))

    @cached_property
    def finite(self) -> Flags:
        """Return which images have finite outputs (N,)."""
        return finite_rows(self.predictions.outputs)


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found; fields as of the product's `Finding`. `way` and `property` choose among sentences."""

    kind: FindingKind
    cost: float
    figures: Mapping[str, float]
    rests_on: str
    classes: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()
    images: tuple[int, ...] = ()
    way: str = ""
    property: str = ""


@dataclass(frozen=True, slots=True)
class NotChecked:
    """Why a rule has nothing to go by."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: the kinds that it may find, and how it looks; at most one of its kinds is found."""

    kinds: tuple[FindingKind, ...]
    look: Callable[[Evidence], Found | NotChecked | None]
    of_meaning: bool = field(default=False)
    """It says something only where the answers mean something."""
