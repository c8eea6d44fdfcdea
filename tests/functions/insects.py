"""Models of three kinds of insects that answer as they are told to: for what is counted image by image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from layerscope.functions.confusion_matrix.func import compute as counted
from layerscope.functions.evaluation.func import compute as evaluated
from layerscope.functions.example_images.func import compute as shown
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.findings import Findings
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import datasets
from layerscope.stores.datasets import Dataset, PartArrays
from tests.functions.asking import index
from tests.functions.bucket import Bucket, layer_vectors, ok_layers, services

CLASSES = ("ant", "bee", "1", "none")
IMAGES = 300
Write = Callable[..., Services]


def writer(directory: Path) -> Write:
    """Return what stores a model that answers as it is told to, and returns the services."""

    def store(
        who: Identity,
        predicted: np.ndarray,
        seed: int = 0,
        part: PartArrays | None = None,
        findings: Findings | None = None,
    ) -> Services:
        part = part or insects()
        if datasets.describe(made.store, who.dataset) is None:
            datasets.write(made.store, who.dataset, CLASSES, {"test": part, "probe": part.take(np.arange(8))})
        bucket = Bucket(made.store, who)
        bucket.admit(content=who.subject.encode())
        outputs = outputs_of(predicted, seed)
        outputs[predicted < 0] = np.nan
        lost = int((predicted < 0).sum())
        predictions = Predictions(outputs=outputs, output_kind="logits", images=IMAGES, non_finite=lost)
        bucket.write(predictions)
        assert bucket.facts.dataset is not None
        dataset = Dataset(bucket.facts.dataset, {"test": part})
        for compute in (evaluated, counted, shown):
            bucket.write(compute(predictions, dataset))
        bucket.write(layer_vectors(bucket.facts, seed, ok_layers(2)))
        if findings is not None:
            bucket.write(findings)
        bucket.refuse_rest()
        index(made, who)
        return made

    made = services(directory)
    return store


def insects() -> PartArrays:
    random = np.random.default_rng(0)
    return PartArrays(random.integers(0, 255, (IMAGES, 5, 4, 3), np.uint8), random.integers(0, 3, IMAGES))


def outputs_of(predicted: np.ndarray, seed: int) -> np.ndarray:
    outputs = np.random.default_rng(seed).normal(0, 1, (IMAGES, len(CLASSES)))
    outputs[np.arange(IMAGES), predicted] = outputs.max(axis=1) + 0.5
    return outputs.astype(np.float32)


def wrong_on(*images: int) -> np.ndarray:
    """Return answers (N,) that are right but for these images."""
    predicted = insects().labels.copy()
    predicted[list(images)] = (predicted[list(images)] + 1) % 3
    return predicted
