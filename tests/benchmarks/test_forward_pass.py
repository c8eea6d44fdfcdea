"""The two products that run the model, against the frozen baselines beside this file: ratios within one run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from functions.inference import normalised
from functions.layer_vectors.func import compute as layer_vectors
from functions.predictions.func import compute as predictions
from tests.benchmarks.classic_layer_vectors import classic_layer_vectors
from tests.benchmarks.classic_predictions import classic_predictions
from tests.benchmarks.networks import MEAN, STD, blobs, digits_cnn, resnet18

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def speed_up(ours: Callable[[], object], classic: Callable[[], object], repeats: int) -> float:
    """Return how many times less CPU time ours takes: the least of several runs each, in turns."""
    seconds: dict[Callable[[], object], list[float]] = {ours: [], classic: []}
    for _ in range(repeats):
        for way, times in seconds.items():
            start = time.process_time()
            way()
            times.append(time.process_time() - start)
    ratio = min(seconds[classic]) / min(seconds[ours])
    print(f"{ratio:.1f} times ({min(seconds[classic]):.2f} s and {min(seconds[ours]):.2f} s)")
    return ratio


def test_layer_vectors_are_three_times_as_fast_as_the_classic_recipe_and_the_same() -> None:
    model, dataset = resnet18(), blobs("probe", 100, 64, 3)
    batch = normalised(dataset.part("probe").images, dataset.description, "cpu")
    expected = classic_layer_vectors(model, batch)
    product = layer_vectors(model=model, dataset=dataset, device="cpu")
    assert {layer.name for layer in product.layers} == set(expected)
    for layer, vector in zip(product.layers, product.cka, strict=True):
        assert np.abs(vector - expected[layer.name]).max() < 1e-5
        assert vector @ expected[layer.name] == pytest.approx(1, abs=1e-5)
    # A model of its own for each way: ours lays weights out for itself.
    other = resnet18()
    ratio = speed_up(
        lambda: layer_vectors(model=model, dataset=dataset, device="cpu"),
        lambda: classic_layer_vectors(other, batch),
        repeats=3,
    )
    assert ratio >= 3


def test_layer_vectors_take_less_memory_than_the_classic_recipe() -> None:
    peaks = {}
    for way in ("ours", "classic"):
        command = [sys.executable, "-m", "tests.benchmarks.memory", way]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
        peaks[way] = int(done.stdout)
    print({way: f"{peak / 1e6:.0f} MB" for way, peak in peaks.items()})
    assert peaks["ours"] < peaks["classic"]


def test_predictions_are_four_times_as_fast_as_one_image_at_a_time_and_the_same() -> None:
    model, other, dataset = digits_cnn(), digits_cnn(), blobs("test", 5_000, 28, 1)
    images = dataset.part("test").images
    product = predictions(model=model, dataset=dataset, device="cpu")
    np.testing.assert_allclose(product.outputs, classic_predictions(other, images, MEAN, STD), atol=1e-5)
    ratio = speed_up(
        lambda: predictions(model=model, dataset=dataset, device="cpu"),
        lambda: classic_predictions(other, images, MEAN, STD),
        repeats=3,
    )
    assert ratio >= 4
