"""Attribution: maps are captum's, their sums those of the scores, and a control tells what the architecture alone shows.

`tests/data/attributions.json` has what captum 0.9.0 said of the networks and the image in `attributed_networks`, for each
class: `LayerGradCam(network, layer).attribute(x, target, relu_attributions=False)` behind the last activation over maps, and
`IntegratedGradients(network).attribute(x, baselines=black, target, n_steps=50, method="gausslegendre")` summed over channels,
with `x` normalised by hand. Of the network that ends in a softmax, it was asked about the part before it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from layerscope.functions.analysis.feature_maps.shapes import recorded, shaped
from layerscope.functions.analysis.feature_maps.sites import sites
from layerscope.functions.analysis.inference import fit, normalised
from layerscope.functions.inference import attribution
from layerscope.functions.inference.attribution import CONTROLS, Attribution, attributed, rank_correlation
from layerscope.functions.inference.call import Attributed, Place
from layerscope.functions.inference.explanation_answer import control_says, overlay
from layerscope.models import safe_form
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.explanations import ALIKE
from layerscope.schemas.products.predictions import OutputKind
from tests.functions.attributed_networks import NETWORKS, described, drawn, image, safe

pytestmark = pytest.mark.slow

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "attributions.json").read_text())
EVERY = range(5)


def made(
    model: SafeModel,
    *classes: int,
    kind: OutputKind = "logits",
    one: int | None = 10,
    pixels: np.ndarray | None = None,
    description: DatasetDescription | None = None,
) -> Attributed:
    pixels, description = image() if pixels is None else pixels, description or described()
    two = np.stack([pixels, pixels])
    convolutions = sites(model.safe_graph)
    with recorded(model, convolutions) as shapes:
        classifier = fit(model, two, description, "cpu")
    layers = [shaped(one, shapes, 2) for one in convolutions]
    return attributed(classifier, kind, layers, one, pixels, classes)


def close(found: np.ndarray, recorded: list[list[float]]) -> None:
    """Assert that a map is what was recorded, to a hundred-thousandth of its largest value."""
    largest = np.abs(recorded).max()
    assert largest > 1e-3
    np.testing.assert_allclose(found, recorded, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_captums(name: str) -> None:
    found = made(safe(name), *EVERY, kind="probabilities" if name == "softmax" else "logits")
    method = "integrated_gradients" if name == "perceptron" else "grad_cam"
    assert (found.place is None) is (name == "perceptron")
    assert found.steps == (50 if name == "perceptron" else None)
    for k, one in enumerate(found.classes):
        assert one.label == k
        close(one.map, RECORDED[name][method][k])


@pytest.mark.parametrize("name", NETWORKS)
def test_integrated_gradients_are_captums_also_of_convolutions(name: str) -> None:
    model = safe(name)
    classifier = fit(model, np.stack([image(), image()]), described(), "cpu")
    found = Attribution(classifier, False, image(), EVERY, None, 50).maps(model)
    for k in EVERY:
        close(found[k], RECORDED[name]["integrated_gradients"][k])


def test_integrated_gradients_add_up_to_the_difference_of_the_two_scores() -> None:
    model = safe("perceptron")
    found = made(model, *EVERY)
    two = np.stack([image(), np.zeros_like(image())])
    scores = fit(model, two, described(), "cpu").outputs(two, 2)
    np.testing.assert_allclose([one.map.sum() for one in found.classes], scores[0] - scores[1], atol=1e-4)


def test_correlations_are_those_of_ranks_with_four_networks() -> None:
    found = made(safe("plain"), 0, 3)
    for one in found.classes:
        assert len(one.correlations) == CONTROLS
        ranks = [rankdata(each.ravel()) for each in (one.map, one.control)]
        assert one.correlations[0] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
    again = made(safe("plain"), 3)
    assert again.classes[0].correlations == found.classes[1].correlations
    flat = np.ones((3, 3), np.float32)
    assert rank_correlation(flat, found.classes[0].map[:3, :3]) is None
    assert rank_correlation(np.full((2, 2), np.nan, np.float32), np.eye(2, dtype=np.float32)) is None


class Blocks(nn.Module):
    """Has no weights, so nothing of what it says was learned."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), (1, 5)).flatten(1)


def stored(model: nn.Module) -> SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(model.eval())))


def test_a_map_that_networks_with_new_weights_give_as_well_is_said_to_say_little() -> None:
    found = made(stored(Blocks()), 2)
    mean, says = control_says(found.classes[0].correlations)
    assert mean == pytest.approx(1)
    assert "says little of what this model learned" in says


COLOURS = np.array(((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)))


def spots(count: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return grey noise with a spot somewhere, whose colour says the class; the classes, and where the spots begin."""
    random, labels = np.random.default_rng(0), np.arange(count) % 5
    pixels = random.integers(60, 160, (count, 12, 12, 1), np.uint8).repeat(3, axis=3)
    places = random.integers(0, 9, (count, 2))
    for one, (row, column) in enumerate(places):
        pixels[one, row : row + 4, column : column + 4] = 255 * COLOURS[labels[one]]
    return pixels, labels, places


def test_a_map_of_what_was_learned_lies_on_it_and_is_not_said_to_say_little() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5)
    )
    pixels, labels, places = spots()
    steps = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(100):
        steps.zero_grad()
        loss = nn.functional.cross_entropy(model(normalised(pixels, described(), "cpu")), torch.tensor(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
    network, on_spot, depends = stored(model), 0, 0
    for one in range(20):
        (found,) = made(network, int(labels[one]), pixels=pixels[one]).classes
        mean, says = control_says(found.correlations)
        depends += mean is not None and mean < ALIKE and "depends on the weights" in says
        offset = np.array(np.unravel_index(found.map.argmax(), found.map.shape)) - places[one]
        on_spot += bool(((offset >= 0) & (offset < 4)).all())
    print(on_spot, depends)
    assert on_spot >= 19
    assert depends >= 18


@pytest.mark.parametrize(
    ("correlations", "mean", "words"),
    [
        ((0.9, 0.7, None, 0.8), 0.8, "3 networks of this architecture with new weights give much the same map"),
        ((0.5,), 0.5, "One network of this architecture with new weights gives much the same map"),
        ((0.49,), 0.49, "One network of this architecture with new weights gives another map"),
        ((-0.9, 0.9), 0.0, "give other maps (mean rank correlation 0.00, below 0.5): this one depends on the weights."),
        ((None, None), None, "the two cannot be held against each other"),
    ],
)
def test_the_sentence_follows_from_the_mean(
    correlations: tuple[float | None, ...], mean: float | None, words: str
) -> None:
    found, says = control_says(correlations)
    assert found == pytest.approx(mean)
    assert words in says


def test_where_positions_are_mixed_behind_the_stem_gradients_are_integrated() -> None:
    class Mixing(nn.Module):
        def __init__(self, blocks: int) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, 4)
            self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(blocks))
            self.fc = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                x = x + torch.tanh(block(x))
            scores: Tensor = self.fc(x.mean(1))
            return scores

    assert made(stored(Mixing(1)), 0).place == Place("patches", 0, 1)
    found = made(stored(Mixing(2)), 0)
    assert (found.place, found.classes[0].map.shape) == (None, (12, 12))


def test_a_convolution_that_leaves_one_place_has_no_map() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 12), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5))
    assert made(stored(model), 1).place is None


def test_a_score_that_the_last_convolution_has_no_part_in_has_an_empty_map() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            others: Tensor = self.fc(x.mean((2, 3)))
            return torch.cat([others, self.conv(x).mean((1, 2, 3))[:, None]], dim=1)

    first, last = made(stored(Beside()), 0, 4).classes
    assert not first.map.any() and last.map.any()
    assert first.correlations == (None,) * CONTROLS


def test_what_a_map_may_cost_is_bounded_and_said() -> None:
    model, networks = safe("perceptron"), 1 + CONTROLS
    a_step = networks * (1 + 2)
    assert made(model, 0, one=attribution.MULTIPLY_ADDS // (a_step * 20)).steps == 20
    assert made(model, 0, one=None).steps == 50
    affordable = attribution.MULTIPLY_ADDS // (networks * attribution.COPIES)
    assert made(safe("plain"), 0, 1, 2, one=affordable).place is not None  # the classes share the forward pass
    for name, one in (("perceptron", attribution.MULTIPLY_ADDS // (a_step * 7)), ("plain", affordable + 1)):
        with pytest.raises(Refused) as refused:
            made(safe(name), 0, one=one)
        assert refused.value.code == "too-much-computation"
        assert "160 billion are allowed together" in refused.value.message


def test_a_model_that_has_no_gradient_or_none_that_is_finite_is_told() -> None:
    class Rounding(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.inner, self.scale = drawn("perceptron"), scale

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.inner(x)
            return scores / self.scale if self.scale == 0 else (scores > 0).float()

    for scale, code in ((1.0, "no-gradient"), (0.0, "non-finite")):
        with pytest.raises(Refused) as refused:
            made(stored(Rounding(scale)), 0)
        assert refused.value.code == code


def test_positive_values_are_laid_over_the_picture_in_grey() -> None:
    pixels = np.full((8, 6, 3), 100, np.uint8)
    values = np.array([[-5, -5], [0, 2]], np.float32)
    found = overlay(pixels, values)
    assert found.shape == (8, 6, 3)
    np.testing.assert_array_equal(found[0, 0], (100, 100, 100))
    np.testing.assert_array_equal(found[-1, -1], np.rint(0.15 * 100 + 0.85 * np.array((230, 97, 1))))
    np.testing.assert_array_equal(overlay(pixels, -np.abs(values)), pixels)
    np.testing.assert_array_equal(overlay(pixels[..., :1], np.zeros((2, 2), np.float32))[..., 0], pixels[..., 0])
