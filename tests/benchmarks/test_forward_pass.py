"""The two products that run the model, against the frozen baselines beside this file: ratios within one run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layerscope.functions.analysis.inference import normalised
from layerscope.functions.layer_vectors.func import compute as layer_vectors
from layerscope.functions.predictions.func import compute as predictions
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


@dataclass(frozen=True)
class Race:
    """What each way returned, and how many times less CPU time ours took."""

    ours: Any
    classic: Any
    ratio: float


def race(ours: Callable[[], object], classic: Callable[[], object], repeats: int) -> Race:
    """Run both ways in turns, and compare the shortest run of each."""
    ways, times, results = (ours, classic), ([], []), [None, None]
    for _ in range(repeats):
        for k, way in enumerate(ways):
            start = time.process_time()
            results[k] = way()
            times[k].append(time.process_time() - start)
    ratio = min(times[1]) / min(times[0])
    print(f"{ratio:.1f} times: {min(times[1]):.2f} s and {min(times[0]):.2f} s")
    return Race(*results, ratio)


def test_layer_vectors_are_half_again_as_fast_as_the_classic_recipe_and_the_same() -> None:
    # A model of its own for each way: ours may lay weights out anew.
    model, other, dataset = resnet18(), resnet18(), blobs("probe", 100, 64, 3)
    batch = normalised(dataset.part("probe").images, dataset.description, "cpu")
    found = race(
        lambda: layer_vectors(model=model, dataset=dataset, device="cpu"),
        lambda: classic_layer_vectors(other, batch),
        repeats=3,
    )
    assert {layer.name for layer in found.ours.layers} == set(found.classic)
    for layer, vector in zip(found.ours.layers, found.ours.cka, strict=True):
        assert np.abs(vector - found.classic[layer.name]).max() < 1e-5
        assert vector @ found.classic[layer.name] == pytest.approx(1, abs=1e-5)
    assert found.ratio >= 1.5  # 1.7 to 3.4 were measured, by the processor and what else shares its memory


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
    found = race(
        lambda: predictions(model=model, dataset=dataset, device="cpu"),
        lambda: classic_predictions(other, images, MEAN, STD),
        repeats=2,
    )
    np.testing.assert_allclose(found.ours.outputs, found.classic, atol=1e-5)
    assert found.ratio >= 4
