"""Weight sketch: distances and cosines of sketches against those of the tensors themselves, and what is left out."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.functions.query.similarity.families import cosine
from layerscope.functions.weight_sketch import func
from layerscope.functions.weight_sketch.sketch import CHUNK, centred, sketched
from layerscope.models import safe_form
from layerscope.schemas.products.weight_sketch import WeightSketch

NUMBERS = WeightSketch.declared.parameters["numbers"]
REFERENCE = [11404.0, -3365.0, 3343.0, -4772.0, -4038.0, -8130.0, -758.0, -468.0]


def computed(model: nn.Module) -> WeightSketch:
    return func.compute(safe_form.build(safe_form.read(safe_form.pack(model.eval()))), "cpu")


def convolutions(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    flat = (nn.Flatten(), nn.Linear(32 * 4, 10))
    return nn.Sequential(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.AdaptiveAvgPool2d(2), *flat)


def test_centring_takes_the_means_of_rows_and_columns_out() -> None:
    drawn = np.random.default_rng(0).normal(size=(8, 3, 4)).astype(np.float32)
    rows, columns = np.arange(8)[:, None, None], np.arange(12).reshape(3, 4)
    one, other = centred(drawn), centred((drawn + 5 * rows - 3 * columns).astype(np.float32))
    assert one is not None and other is not None
    assert np.allclose(one, other, atol=1e-4)
    assert np.allclose([one.sum(axis=0).max(), one.sum(axis=1).max()], 0, atol=1e-9)
    assert centred((rows + columns).astype(np.float32)) is None
    assert centred(np.full((4, 4), np.inf, np.float32)) is None


@pytest.mark.parametrize("wanted", [-0.9, 0.0, 0.3, 0.9, 0.999, 1.0])
def test_cosines_of_sketches_are_as_exact_as_is_said(wanted: float) -> None:
    errors = []
    for seed in range(60):
        drawn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3000, 2)))[0].T
        one, other = drawn[0], wanted * drawn[0] + np.sqrt(1 - wanted**2) * drawn[1]
        first, second = (sketched(vector[None], NUMBERS, seed) for vector in (one, other))
        errors.append(cosine(first, second) - wanted)
    deviation = (1 - wanted**2) / np.sqrt(NUMBERS * (1 + wanted**2))
    assert abs(np.mean(errors)) <= 4 * deviation / np.sqrt(60) + 1e-6
    assert np.std(errors) <= 1.35 * deviation + 1e-6


def test_distances_of_sketches_are_those_of_the_tensors() -> None:
    ratios = []
    for seed in range(60):
        drawn = np.random.default_rng(seed).standard_normal((2, 20, 100))
        first, second = (sketched(one, NUMBERS, seed) for one in drawn)
        ratios.append(np.linalg.norm(first - second) / np.linalg.norm(drawn[0] - drawn[1]))
    assert abs(np.mean(ratios) - 1) < 0.02
    assert 0.5 < np.std(ratios) * np.sqrt(2 * NUMBERS) < 1.4


def test_places_and_signs_do_not_change_with_the_version_of_numpy() -> None:
    """They are part of what is stored; whoever changes them raises the recipe."""
    told = sketched(np.arange(1.0, 1001.0)[None], 8, seed=0)
    assert told.tolist() == REFERENCE


def test_a_tensor_of_several_chunks_is_sketched_as_in_one() -> None:
    drawn = np.random.default_rng(1).standard_normal((3, CHUNK // 2))
    bits = np.random.PCG64(np.random.SeedSequence([0, drawn.size])).random_raw(drawn.size)
    expected = np.zeros(NUMBERS)
    np.add.at(expected, bits % NUMBERS, np.where(bits >> 63, -1.0, 1.0) * drawn.ravel())
    assert np.allclose(sketched(drawn, NUMBERS, 0), expected, atol=1e-9)


def test_a_model_has_a_line_for_each_tensor_and_rows_for_its_weights() -> None:
    model = convolutions()
    sketch = computed(model)
    assert [one.name for one in sketch.tensors] == list(model.state_dict())
    for one in sketch.tensors:
        assert one.sha256 == hashlib.sha256(model.state_dict()[one.name].numpy().tobytes()).hexdigest()
    assert {one.name for one in sketch.tensors if one.row is not None} == {"0.weight", "4.weight"}
    assert sketch.rows.shape == (2, NUMBERS)
    assert sketch.headline() == {"tensors": len(sketch.tensors), "sketched": 2}
    weight = centred(model.state_dict()["4.weight"].numpy())
    (line,) = (one for one in sketch.tensors if one.name == "4.weight")
    assert weight is not None and line.norm == pytest.approx(np.linalg.norm(weight))
    assert line.trainable


def test_the_architecture_is_the_same_whatever_the_weights_and_what_is_frozen() -> None:
    frozen = convolutions(seed=2)
    frozen.requires_grad_(False)
    assert computed(convolutions()).architecture == computed(frozen).architecture
    other = convolutions()
    other[0] = nn.Conv2d(1, 32, 3, stride=2, padding=1)  # type: ignore[index]
    assert computed(convolutions()).architecture != computed(other).architecture


def test_batches_are_those_that_batchnorm_has_seen() -> None:
    model = convolutions().train()
    for _ in range(3):
        model(torch.zeros(2, 1, 9, 9))
    assert computed(model).batches == 3
    assert computed(nn.Sequential(nn.Flatten(), nn.Linear(9, 10))).batches is None


def test_weights_that_are_not_finite_have_no_row() -> None:
    model = convolutions()
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")  # type: ignore[index,union-attr]
    assert [one.name for one in computed(model).tensors if one.row is not None] == ["0.weight"]
