"""Pictures of digits by MACO and by pixels: what other networks take them for, and what they cost, within one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.demo.networks import Residual
from layerscope.functions.activation_maximization.ascent import Method, Recipe, pictures_of
from layerscope.functions.activation_maximization.objectives import scores_of
from layerscope.functions.activation_maximization.prior import prior_of
from layerscope.functions.analysis.inference import Classifier, Images, fit
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.products.activation_maximization import ActivationMaximization
from layerscope.stores.datasets import Dataset
from tests.benchmarks.digits_networks import (
    averaged,
    digits_dataset,
    perceptron,
    safe,
    strided,
    three_convolutions,
    trained,
    wide_kernels,
)

pytestmark = pytest.mark.benchmark

SUBJECTS: Mapping[str, Callable[[], nn.Module]] = {
    "three convolutions": three_convolutions,
    "residual": Residual,
    "averaged": averaged,
}
JUDGES: Mapping[str, Callable[[], nn.Module]] = {
    "strided": strided,
    "wide kernels": wide_kernels,
    "perceptron": perceptron,
}
METHODS: tuple[Method, ...] = ("maco", "pixel")
DIGITS = np.arange(10)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits_dataset()


def fitted(make: Callable[[], nn.Module], seed: int, dataset: Dataset) -> tuple[SafeModel, Classifier]:
    model = safe(trained(make, seed, dataset))
    return model, fit(model, dataset.part("test").images, dataset.description, "cpu")


def pictures(method: Method, model: SafeModel, classifier: Classifier, dataset: Dataset) -> Images:
    """Return ten pictures, statistics of the dataset and all."""
    images, steps = dataset.part("test").images, ActivationMaximization.declared.parameters["steps"]
    scores = scores_of(classifier, model, images)
    return pictures_of(scores, DIGITS.tolist(), prior_of(images, "cpu"), classifier, Recipe(method, steps, 2, 0))


def test_networks_that_never_saw_the_model_take_macos_pictures_for_what_they_are_meant_to_be(dataset: Dataset) -> None:
    test = dataset.part("test")
    judges = {name: fitted(make, 10 + k, dataset)[1] for k, (name, make) in enumerate(JUDGES.items())}
    for name, judge in judges.items():
        accuracy = (judge.outputs(test.images, 128).argmax(1) == test.labels).mean()
        print(f"judge {name}: {accuracy:.3f} of the test images")
        assert accuracy > 0.95
    found: dict[Method, list[float]] = {method: [] for method in METHODS}
    for seed, (name, make) in enumerate(SUBJECTS.items()):
        model, classifier = fitted(make, seed, dataset)
        for method in METHODS:
            made = pictures(method, model, classifier, dataset)
            right = [float((judge.outputs(made, 10).argmax(1) == DIGITS).mean()) for judge in judges.values()]
            print(f"{name}, {method}: {dict(zip(judges, right, strict=True))}")
            found[method] += right
    maco, pixel = (float(np.mean(found[method])) for method in METHODS)
    print(f"maco {maco:.2f}, pixel {pixel:.2f}")
    assert maco >= 0.95
    assert pixel < maco


def test_ten_classes_take_at_most_twice_the_time_of_the_pixel_method(dataset: Dataset) -> None:
    images = dataset.part("test").images
    for name, make in SUBJECTS.items():
        torch.manual_seed(0)
        model = safe(make())
        classifier = fit(model, images, dataset.description, "cpu")
        seconds: dict[Method, list[float]] = {method: [] for method in METHODS}
        for _ in range(4):
            for method in METHODS:
                start = time.process_time()
                pictures(method, model, classifier, dataset)
                seconds[method].append(time.process_time() - start)
        maco, pixel = (min(seconds[method]) for method in METHODS)
        print(f"{name}: {maco / pixel:.2f}, {maco:.2f} s and {pixel:.2f} s")
        assert maco <= 2 * pixel
