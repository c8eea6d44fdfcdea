"""Feature activation: rankings, figures and maps are those of plain NumPy over all responses, kept and in float64."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from layerscope.functions.analysis.feature_maps.sites import sites
from layerscope.functions.analysis.inference import fit, normalised
from layerscope.functions.feature_activation import func
from layerscope.functions.feature_activation.ranking import Ranking
from layerscope.functions.feature_activation.stream import Ranked, rank
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.feature_activation import FeatureActivation, LayerChannels
from layerscope.stores.datasets import Dataset, PartArrays

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
K = 9


def described(images: np.ndarray) -> DatasetDescription:
    channels = images.shape[3]
    return DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(10)),
        shape=images.shape[1:],
        mean=(0.0,) * channels,
        std=(1 / 255,) * channels,  # a model sees the bytes themselves, as whole numbers
        parts={"test": {"sha256": "0" * 64, "images": len(images)}},
    )


def random_images(count: int = 300, size: int = 12, channels: int = 1, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, size // 4, size // 4, channels))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)


def safe(model: nn.Module) -> safe_form.SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(model.eval())))


def compute(model: nn.Module, images: np.ndarray) -> FeatureActivation:
    dataset = Dataset(described(images), {"test": PartArrays(images, np.arange(len(images)) % 10)})
    return func.compute(model=safe(model), dataset=dataset, device="cpu")


def random_cnn(activation: Callable[[], nn.Module] = nn.ReLU, channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        activation(),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(16, 6, 3),
        activation(),
        nn.Conv2d(6, 5, 1),
        nn.Flatten(),
        nn.Linear(5 * 8 * 8, 10),
    )
    with torch.no_grad():
        model[1].running_mean.normal_().mul_(60)
        model[1].running_var.uniform_(3e3, 2e4)
        model[1].weight.normal_()
    return model


def responses(model: nn.Module, layers: list[nn.Module], images: np.ndarray) -> list[np.ndarray]:
    """Return the responses of these layers to all images in one batch, as float64."""
    kept: dict[nn.Module, np.ndarray] = {}

    def keep(layer: nn.Module, inputs: object, output: Tensor) -> None:
        kept[layer] = output.numpy().astype(np.float64)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    with torch.inference_mode():
        model.eval()(normalised(images, described(images), "cpu"))
    for hook in hooks:
        hook.remove()
    return [kept[layer] for layer in layers]


def assert_is_ranking(indices: np.ndarray, scores: np.ndarray, truth: np.ndarray, slack: float = 1e-5) -> None:
    """Compare (C, k) with all scores (N, C): the same images, but for those closer together than float32 can tell."""
    order = np.argsort(-truth, axis=0, kind="stable")[: indices.shape[1]].T
    expected = np.take_along_axis(truth.T, order, axis=1)
    chosen = np.take_along_axis(truth.T, indices.astype(int), axis=1)
    room = slack * np.abs(truth).max(axis=0)[:, None] + 1e-30
    assert (np.abs(scores - expected) <= room).all()
    assert (np.abs(chosen - expected) <= room).all()
    assert (indices == order).mean() > 0.97
    assert all(len(set(row)) == len(row) for row in indices.tolist())


def norms(maps: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(maps).sum(axis=tuple(range(2, maps.ndim))))


def rows_of(found: FeatureActivation, layer: LayerChannels, name: str) -> np.ndarray:
    rows: np.ndarray = getattr(found, name)[layer.first_row : layer.first_row + layer.channels]
    return rows


def assert_layer(found: FeatureActivation, layer: LayerChannels, raw: np.ndarray, behind: np.ndarray) -> None:
    """Compare one layer with the convolution's outputs and its activations (N, C, …), kept in full."""
    positive, flat = np.maximum(behind, 0), behind.reshape(*behind.shape[:2], -1)
    assert layer.shape == raw.shape[1:]
    assert layer.activation_shape == behind.shape[1:]
    assert_is_ranking(rows_of(found, layer, "by_raw_norm"), rows_of(found, layer, "raw_norms"), norms(raw))
    assert_is_ranking(
        rows_of(found, layer, "by_positive_norm"), rows_of(found, layer, "positive_norms"), norms(positive)
    )
    images, maxima = rows_of(found, layer, "by_maximum"), rows_of(found, layer, "maxima")
    assert_is_ranking(images, maxima, flat.max(axis=2))
    places = rows_of(found, layer, "maximum_at")
    at = flat[images, np.arange(layer.channels)[:, None], places]
    np.testing.assert_allclose(at, maxima, rtol=1e-5, atol=1e-5)
    first = flat.argmax(axis=2)[images, np.arange(layer.channels)[:, None]]
    assert (first == places).mean() > 0.9
    for told, truth in ((layer.strongest, positive), (layer.strongest_raw, raw)):
        whole = np.sqrt(np.square(truth).reshape(len(truth), -1).sum(axis=1))
        assert told is not None
        assert whole[told.index] == pytest.approx(whole.max(), rel=1e-5)
        assert told.norm == pytest.approx(whole.max(), rel=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_rankings_are_those_of_all_responses_kept_in_float64(activation: Callable[[], nn.Module]) -> None:
    model, images = random_cnn(activation), random_images(700)  # more than one batch
    found = compute(model, images)
    conv, act, up, second, last = responses(model, [model[0], model[2], model[4], model[5], model[6]], images)
    assert [(one.name, one.type, one.activation) for one in found.layers] == [
        ("0", "Conv2d", activation.__name__),
        ("4", "ConvTranspose2d", activation.__name__),
        ("6", "Conv2d", None),
    ]
    assert [one.activation_layer for one in found.layers] == ["2", "5", None]
    assert_layer(found, found.layers[0], conv, act)
    assert_layer(found, found.layers[1], up, second)
    assert_layer(found, found.layers[2], last, last)
    assert found.headline()["channels"] == 27


def test_an_in_place_activation_does_not_change_what_is_said_of_the_convolution() -> None:
    images = random_images()
    apart, inplace = (compute(random_cnn(lambda x=x: nn.ReLU(inplace=x)), images) for x in (False, True))
    for name in ("by_raw_norm", "raw_norms", "by_positive_norm", "by_maximum", "maxima"):
        assert (getattr(apart, name) == getattr(inplace, name)).all()
    assert apart.layers == inplace.layers


class WithoutModules(nn.Module):
    """Activations as functions and methods; one layer twice; a residual sum; the axes of 1-d and 3-d maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.rows = nn.Conv1d(4, 3, 3)
        self.cubes = nn.Conv3d(1, 2, 2)
        self.head = nn.Linear(3 * 142 + 2 * 3 * 11 * 11, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = (x + self.twice(x)).relu_()
        y = torch.tanh(self.twice(x))
        rows = self.rows(y.flatten(2))
        cubes = functional.elu(self.cubes(y[:, None]))
        return self.head(torch.cat([rows.flatten(1), cubes.flatten(1)], dim=1))

    def all_responses(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        first = self.stem(x)
        a = torch.relu(first)
        second = self.twice(a)
        b = torch.relu(a + second)
        third = self.twice(b)
        c = torch.tanh(third)
        rows, cubes = self.rows(c.flatten(2)), self.cubes(c[:, None])
        return [(first, a), (second, b), (third, c), (rows, rows), (cubes, functional.elu(cubes))]


def test_functions_methods_sums_and_repeated_layers_are_followed_and_maps_may_have_one_or_three_axes() -> None:
    torch.manual_seed(0)
    model, images = WithoutModules(), random_images(150)
    found = compute(model, images)
    assert [(one.name, one.call, one.type, one.activation, one.through_sum) for one in found.layers] == [
        ("stem", 0, "Conv2d", "functional.relu", False),
        ("twice", 0, "Conv2d", "relu_", True),
        ("twice", 1, "Conv2d", "torch.tanh", False),
        ("rows", 0, "Conv1d", None, False),
        ("cubes", 0, "Conv3d", "functional.elu", False),
    ]
    with torch.inference_mode():
        truth = model.all_responses(normalised(images, described(images), "cpu"))
    for layer, (raw, behind) in zip(found.layers, truth, strict=True):
        assert_layer(found, layer, raw.double().numpy(), behind.double().numpy())


class Mixed(nn.Module):
    """Linear layers with an activation on one number an image, on tokens and on places, and some without."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 4, stride=4)
        self.places = nn.Linear(6, 10)
        self.plain = nn.Linear(10, 6)
        self.tokens = nn.Linear(6, 7)
        self.hidden = nn.Linear(63, 24)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(functional.gelu(self.places(self.conv(x / 64 - 2).permute(0, 2, 3, 1))))
        x = torch.tanh(self.tokens(x.flatten(1, 2)))
        return self.head(functional.relu(self.drop(self.hidden(x.flatten(1)))))

    def all_responses(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        conv = self.conv(x / 64 - 2)
        places = self.places(conv.permute(0, 2, 3, 1))
        tokens = self.tokens(self.plain(functional.gelu(places)).flatten(1, 2))
        hidden = self.hidden(torch.tanh(tokens).flatten(1))
        return {
            "conv": (conv, conv),
            "places": (places.permute(0, 3, 1, 2), functional.gelu(places).permute(0, 3, 1, 2)),
            "tokens": (tokens.transpose(1, 2), torch.tanh(tokens).transpose(1, 2)),
            "hidden": (hidden, functional.relu(hidden)),
        }


def test_units_behind_linear_layers_are_ranked_with_and_without_positions() -> None:
    torch.manual_seed(0)
    model = Mixed()
    images = np.random.default_rng(0).integers(0, 256, (700, 12, 12, 1)).astype(np.uint8)  # more than one batch
    with torch.no_grad():
        model.hidden.weight[5], model.hidden.bias[5] = 0, -1
    found = compute(model, images)
    assert [(one.name, one.type, one.activation, one.activation_shape) for one in found.layers] == [
        ("conv", "Conv2d", None, (6, 3, 3)),
        ("places", "Linear", "functional.gelu", (10, 3, 3)),
        ("tokens", "Linear", "torch.tanh", (7, 9)),
        ("hidden", "Linear", "functional.relu", (24,)),
    ]
    with torch.inference_mode():
        truth = model.eval().all_responses(normalised(images, described(images), "cpu"))
    for layer in found.layers:
        raw, behind = (one.double().numpy() for one in truth[layer.name])
        assert_layer(found, layer, raw, behind)
    *mapped, hidden = found.layers
    assert all(one.map is not None for layer in mapped for one in layer.shown)
    assert hidden.shown and all(one.map is None and one.peak_at == () for one in hidden.shown)
    assert 5 in hidden.dead
    assert hidden.dead == tuple(np.flatnonzero((truth["hidden"][1].numpy() <= 0).all(0)))
    heights = [one.map.place.h for layer in mapped for one in layer.shown if one.map]
    assert set(heights) == {3, 1}  # tokens lie in a row


def test_a_model_without_convolutions_has_its_units_ranked() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(144, 40), nn.ReLU(), nn.Linear(40, 10)), random_images(60)
    found = compute(model, images)
    (layer,) = found.layers
    hidden, act = responses(model, [model[1], model[2]], images)
    assert_layer(found, layer, hidden, act)
    assert len(layer.shown) == 16 and found.headline()["channels"] == 40


def whole_numbers_cnn() -> nn.Module:
    """Return a network whose responses to whole numbers are exact in float32, in whatever order they are summed."""
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 3, 3), nn.Flatten(), nn.Linear(192, 10))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in (model[0], model[2]):
            one.weight.copy_(torch.randint(-1, 2, one.weight.shape, generator=random))
            one.bias.zero_()
    return model


def small_whole_images(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 3, (count, 12, 12, 1)).astype(np.uint8)


def ranked(model: nn.Module, images: np.ndarray, batch: int) -> list[Ranked]:
    built = safe(model)
    return rank(fit(built, images, described(images), "cpu"), built, sites(built.safe_graph), images, K, batch)


def test_results_do_not_depend_on_the_batch_size_to_the_last_bit_where_arithmetic_is_exact() -> None:
    model, images = whole_numbers_cnn(), small_whole_images(200)
    raw = norms(responses(model, [model[0]], images)[0])
    order = np.argsort(-raw, axis=0, kind="stable")[:K].T
    first, *others = [ranked(model, images, batch) for batch in (200, 64, 7, 1)]
    assert (first[0].raw.indices == order).all()
    assert len(np.unique(raw[:, 0])) < 150  # there are ties
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            for name in ("raw", "positive", "maximum", "whole_raw", "whole_positive"):
                assert (getattr(ours, name).indices == getattr(theirs, name).indices).all()
                assert (getattr(ours, name).scores == getattr(theirs, name).scores).all()
            assert (ours.places == theirs.places).all()
            assert (ours.maps == theirs.maps).all()


def test_equal_images_go_by_index() -> None:
    images = np.repeat(small_whole_images(4), 40, axis=0)
    for one in ranked(whole_numbers_cnn(), images, batch=32):
        for best in (one.raw, one.positive, one.maximum):
            assert (np.diff(best.indices, axis=1) == 1).all()
            assert (best.indices[:, 0] % 40 == 0).all()


def test_dead_and_constant_channels_are_flagged() -> None:
    model = random_cnn()
    with torch.no_grad():
        model[1].bias[3] = -1e6
        model[1].weight[5], model[1].bias[5] = 0, 2.5
        model[6].weight[1], model[6].bias[1] = 0, -4
    images = random_images()
    found = compute(model, images)
    for layer, behind in zip(found.layers, responses(model, [model[2], model[5], model[6]], images), strict=True):
        high, low = behind.max(axis=(0, 2, 3)), behind.min(axis=(0, 2, 3))
        dead = tuple(np.flatnonzero(high <= 0)) if layer.activation else ()  # without one, below 0 is as good as above
        assert layer.dead == dead
        assert layer.constant == tuple(np.flatnonzero(high == low))
        assert not set(dead) & {one.channel for one in layer.shown}
    first, _, last = found.layers
    assert 3 in first.dead
    assert {3, 5} <= set(first.constant)
    assert last.constant == (1,)
    assert found.headline()["dead"] == sum(len(layer.dead) for layer in found.layers)


def test_a_channel_that_varies_on_one_image_alone_is_not_constant() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(144, 10))
    images = np.full((300, 12, 12, 1), 7, np.uint8)
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.fill_(-9)
    assert compute(model, images).layers[0].constant == (0,)
    images[299, 4, 5] = 6
    assert compute(model, images).layers[0].constant == ()


class Root(nn.Module):
    """Puts out NaN for some images, and infinity for others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.head = nn.Linear(288, 10)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 0.0])[:, None, None, None])
            self.conv.bias.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv(torch.sqrt(x - 10)))
        return self.head(x.flatten(1))


def test_images_with_nan_are_not_ranked_and_the_channels_are_flagged() -> None:
    images = np.random.default_rng(0).integers(20, 200, (40, 12, 12, 1)).astype(np.uint8)
    images[5, 0, 0], images[11] = 0, 3
    found = compute(Root(), images)
    (layer,) = found.layers
    assert layer.non_finite == (0, 1)  # nothing times NaN is NaN
    assert layer.constant == ()
    for name in ("by_raw_norm", "by_positive_norm", "by_maximum"):
        assert not {5, 11} & set(getattr(found, name).ravel().tolist())
    assert np.isfinite(found.raw_norms).all()
    every = compute(Root(), images[[5, 11]])
    assert (every.by_raw_norm == -1).all()
    assert np.isnan(every.maxima).all()
    assert (every.maximum_at == -1).all()
    assert (every.layers[0].shown, every.layers[0].strongest, every.layers[0].dead) == ((), None, ())


def test_fewer_images_than_k_leave_the_rest_empty() -> None:
    model, images = random_cnn(), random_images(4)
    found = compute(model, images)
    assert (found.by_raw_norm[:, 4:] == -1).all()
    assert np.isnan(found.raw_norms[:, 4:]).all()
    assert (np.sort(found.by_raw_norm[:, :4]) == np.arange(4)).all()
    assert len(found.layers[0].shown[0].positive) == 4


def pixels(sheet: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sheet)))


def test_shown_channels_are_the_strongest_with_their_images_and_maps() -> None:
    model, images = random_cnn(), random_images()
    found = compute(model, images)
    (act,) = responses(model, [model[2]], images)
    layer, sheet, maps = found.layers[0], pixels(found.sheet), pixels(found.maps)
    strongest = np.argsort(-norms(act).max(axis=0), kind="stable")
    assert [one.channel for one in layer.shown] == [k for k in strongest if norms(act)[:, k].max() > 0]
    there = {one.index: one for one in found.examples}
    for one in layer.shown:
        assert one.map is not None
        truth, drawn = act[one.map.image, one.channel], one.map
        assert one.map.image == one.positive[0] == norms(act)[:, one.channel].argmax()
        assert one.positive[0] in there
        assert (drawn.low, drawn.high) == pytest.approx((truth.min(), truth.max()), abs=1e-4)
        at = drawn.place
        shades = maps[at.y : at.y + at.h, at.x : at.x + at.w].astype(float)
        step = (drawn.high - drawn.low) / 255
        np.testing.assert_allclose(drawn.low + shades * step, truth, atol=0.51 * step + 1e-4)
        peak = act[one.maximum[0], one.channel]
        assert peak[one.peak_at] == pytest.approx(one.peak, rel=1e-5)
        assert one.peak == pytest.approx(act[:, one.channel].max(), rel=1e-5)
        assert one.norm == pytest.approx(norms(act)[:, one.channel].max(), rel=1e-5)
    for index, one in there.items():
        at = one.place
        assert (sheet[at.y : at.y + at.h, at.x : at.x + at.w] == images[index, ..., 0]).all()
        assert one.label == index % 10
    named = {index for one in found.layers for c in one.shown for index in (*c.positive, *c.raw, *c.maximum)}
    assert set(there) <= named
    assert len(there) + found.examples_cut == len(named)


def test_what_is_pictured_is_bounded_and_large_maps_are_reduced_by_their_maxima() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(40, 10)
    )
    images = random_images(60, size=120, channels=3)
    found = compute(model, images)
    (layer,) = found.layers
    (act,) = responses(model, [model[1]], images)
    assert len(layer.shown) == 16
    for one in layer.shown:
        assert one.map is not None
        assert (one.map.place.w, one.map.place.h) == (40, 40)
        assert one.map.high == pytest.approx(act[one.map.image, one.channel].max(), rel=1e-5)
    assert pixels(found.sheet).ndim == 3


class Windows(nn.Module):
    """Gives a convolution four rows an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.last = nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(2 * 100 + 2 * 4 * 10, 10)

    def forward(self, x: Tensor) -> Tensor:
        windows = torch.relu(self.conv(x.reshape(-1, 1, 3, 12)))
        return self.head(torch.cat([windows.reshape(x.shape[0], -1), self.last(x).flatten(1)], dim=1))


def test_a_layer_without_a_row_an_image_is_said_to_be_so_and_the_others_are_ranked() -> None:
    found = compute(Windows(), random_images(50))
    first, last = found.layers
    assert (first.state, first.shown, first.strongest, last.state) == ("unbatched", (), None, "ok")
    assert (rows_of(found, first, "by_raw_norm") == -1).all()
    assert (rows_of(found, last, "by_raw_norm") >= 0).all()


def test_a_model_without_channels_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(Refused) as refused:
        compute(model, random_images(5))
    assert refused.value.code == "no-channels"


def test_the_model_is_left_without_taps_and_with_the_same_outputs() -> None:
    model, images = safe(random_cnn()), random_images(20)
    batch = normalised(images, described(images), "cpu")
    dataset = Dataset(described(images), {"test": PartArrays(images, np.arange(20) % 10)})
    with torch.inference_mode():
        before = model(batch)
        func.compute(model=model, dataset=dataset, device="cpu")
        torch.testing.assert_close(model(batch), before)
    assert not model.safe_taps


def test_a_ranking_is_a_stable_sort_whatever_comes_in() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(-3, 4, (500, 6)).astype(np.float32) * np.float32(0.1)
    scores[::50, 0], scores[7, 1], scores[8, 1], scores[9, 2] = np.nan, np.inf, -np.inf, -0.0
    ranking = Ranking(6, K, "cpu")
    assert (ranking.worst() == -torch.inf).all()
    which = torch.full((6, K), -1)
    for start in range(0, 500, 33):
        part = torch.tensor(scores[start : start + 33])
        kept = ranking.add(part, start)
        came = torch.arange(start, start + len(part)).expand(6, -1)
        which = torch.cat([which, came], dim=1).gather(1, kept)
    truth = np.where(np.isfinite(scores), scores, -np.inf)
    order = np.argsort(-truth, axis=0, kind="stable")[:K].T
    assert (ranking.indices() == order).all()
    assert (which.numpy() == order).all()
    assert (ranking.scores() == np.take_along_axis(truth.T, order, 1)).all()
    assert (ranking.worst().numpy() == ranking.scores()[:, -1]).all()
    assert ranking.keys.numel() == 6 * K


def test_peak_memory_is_the_same_for_ten_times_the_images() -> None:
    peaks = []
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed leaves the process at once
    for count in (640, 6_400):  # batches of 320
        command = [sys.executable, "-m", "tests.benchmarks.feature_activation_memory", str(count)]
        done = subprocess.run(
            command, cwd=ROOT, env=given_back, capture_output=True, text=True, timeout=120, check=True
        )
        peaks.append(int(done.stdout))
    print([f"{peak / 1e6:.1f} MB" for peak in peaks])
    assert peaks[1] < peaks[0] + 4_000_000
