"""Class vectors: against float64 NumPy, and that they say what a class responds to and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.functions.analysis.untrained import affordable
from layerscope.functions.class_vectors import func
from layerscope.functions.class_vectors.responses import responses
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.class_vectors import ClassVectors
from layerscope.stores.datasets import Dataset, PartArrays

IMAGES, CLASSES = 40, 5
NAMES = tuple(f"class {number}" for number in range(CLASSES))
SHA = "c" * 64


def given(mean: float = 0.4, std: float = 0.2, classes: tuple[str, ...] = NAMES) -> Dataset:
    pixels = np.random.default_rng(3).integers(0, 256, (IMAGES, 6, 6, 1), np.uint8)
    described = DatasetDescription(
        name="small",
        classes=classes,
        shape=(6, 6, 1),
        mean=(mean,),
        std=(std,),
        parts={"test": {"sha256": "0" * 64, "images": 1}},
        common={"sha256": SHA, "images": IMAGES, "sources": ("small", "other")},
    )
    return Dataset(described, {"common": PartArrays(pixels, np.zeros(IMAGES, np.int64))})


def network(classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes))


def compute(model: nn.Module, dataset: Dataset | None = None) -> ClassVectors:
    safe = safe_form.build(safe_form.read(safe_form.pack(model.eval())))
    return func.compute(model=safe, dataset=dataset or given(), device="cpu")


def reference(logits: np.ndarray) -> np.ndarray:
    """Return the classes' vectors by double centring with matrices: H Z H', each column divided by its length."""
    n, c = logits.shape
    over_images, over_classes = np.eye(n) - np.ones((n, n)) / n, np.eye(c) - np.ones((c, c)) / c
    centred = over_images @ logits.astype(np.float64) @ over_classes
    return np.stack([column / np.sqrt(np.sum(column**2)) for column in centred.T])


def test_vectors_are_those_of_float64_numpy_on_images_normalised_as_the_models_dataset_is() -> None:
    model, dataset = network().eval(), given(mean=0.7, std=0.1)
    found = compute(model, dataset)
    pixels = dataset.part("common").images.astype(np.float64) / 255
    with torch.no_grad():
        logits = model.double()(torch.tensor((pixels - 0.7) / 0.1).permute(0, 3, 1, 2)).numpy()
    assert np.abs(found.vectors - reference(logits)).max() < 2e-6
    assert found.vectors.dtype == np.float32
    assert (found.probe, found.images, [one.name for one in found.classes]) == (SHA, IMAGES, list(NAMES))


def test_the_same_images_are_given_otherwise_under_another_normalisation() -> None:
    first, second = (compute(network(), given(mean=mean)).vectors for mean in (0.2, 0.7))
    assert np.abs(first - second).max() > 0.01


def test_what_a_softmax_does_not_see_and_what_training_longer_scales_leave_a_vector_as_it_is() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((30, 4))
    found = responses(logits, "logits").vectors
    shifted = 3 * logits + 5 * rng.standard_normal((30, 1)) + rng.standard_normal(4)
    assert np.abs(responses(shifted, "logits").vectors - found).max() < 1e-6
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(responses(odds, "probabilities").vectors - found).max() < 1e-6
    assert np.abs(responses(np.log(odds), "log_probabilities").vectors - found).max() < 1e-6


def test_a_class_answered_alike_everywhere_and_a_single_class_have_no_vector() -> None:
    logits = np.random.default_rng(2).standard_normal((20, 3))
    logits[:, 1] = logits[:, [0, 2]].mean(axis=1)
    found = responses(logits.astype(np.float32), "logits")
    assert found.states == ("ok", "constant", "ok")
    assert not found.vectors[1].any()
    assert np.linalg.norm(found.vectors[[0, 2]], axis=1) == pytest.approx(1, abs=1e-6)
    assert responses(logits[:, :1], "logits").states == ("constant",)


def test_outputs_that_are_not_finite_leave_no_class_to_compare() -> None:
    logits = np.random.default_rng(2).standard_normal((20, 3))
    logits[4, 0] = np.inf
    found = responses(logits, "logits")
    assert found.states == ("non_finite",) * 3
    assert not found.vectors.any()


def test_untrained_networks_are_independent_of_the_model_and_of_each_other_and_repeat() -> None:
    found, again = compute(network()), compute(network())
    assert found.untrained.shape == (4, CLASSES, IMAGES)
    assert (found.untrained == again.untrained).all() and (found.vectors == again.vectors).all()
    assert np.linalg.norm(found.untrained, axis=2) == pytest.approx(1, abs=1e-5)
    together = np.concatenate([found.vectors[None], found.untrained]).reshape(5, -1)
    alike = together @ together.T / CLASSES
    assert np.abs(alike[~np.eye(5, dtype=bool)]).max() < 0.9


def test_the_costlier_a_model_the_fewer_untrained_networks_but_one_at_least() -> None:
    safe = safe_form.build(safe_form.read(safe_form.pack(network().eval())))
    one_image = 4 * 16 * 9 + 64 * CLASSES
    for networks, wanted in ((0.5, 1), (1, 1), (3.5, 3), (100, 4)):
        allowed = round(networks * IMAGES * one_image)
        assert affordable(safe, (IMAGES, 6, 6, 1), allowed, 4) == wanted


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(Refused, match="7 outputs; small has 5 classes"):
        compute(network(7))


def test_the_headline_counts_classes_that_can_be_compared() -> None:
    assert compute(network()).headline() == {"classes": CLASSES, "comparable": CLASSES}
