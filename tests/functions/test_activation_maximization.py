"""Activation maximization: figures are those of the stored pictures, recomputed; pictures depend on seed and target alone."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional

from layerscope.functions.activation_maximization import func
from layerscope.functions.activation_maximization.ascent import CHUNK_ON_CPU, Recipe, pictures_of, uphill
from layerscope.functions.activation_maximization.capacity import capacity, cost_of_one
from layerscope.functions.activation_maximization.control import held_against
from layerscope.functions.activation_maximization.nearest import NearestImages, nearest_images
from layerscope.functions.activation_maximization.objectives import ScoredModel, scores_of
from layerscope.functions.activation_maximization.prior import LEAST_DEVIATION, Prior, prior_of, spread
from layerscope.functions.activation_maximization.rendering import Rendering
from layerscope.functions.analysis.inference import fit, normalised
from layerscope.functions.analysis.searched_images import affordable_images
from layerscope.functions.analysis.untrained import untrained
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.activation_maximization import ActivationMaximization
from layerscope.schemas.products.sprites import Place
from layerscope.stores.datasets import Dataset, PartArrays

MEAN, STD = 0.4, 0.3
SIZE = 12


def dataset(classes: int = 10, size: int = SIZE, channels: int = 1, count: int = 90) -> Dataset:
    """Return smooth images, each class bright in a place of its own."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    coarse = random.integers(0, 120, (count, 4, 4, channels))
    coarse.reshape(count, 16, channels)[np.arange(count), labels % 16] += 120
    images = np.kron(coarse, np.ones((1, size // 4, size // 4, 1))).astype(np.uint8)
    described = DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(classes)),
        shape=images.shape[1:],
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        parts={"test": {"sha256": "0" * 64, "images": count}},
    )
    return Dataset(described, {"test": PartArrays(images, labels.astype(np.int64))})


def cnn(*ends: nn.Module, classes: int = 10, channels: int = 1, size: int = SIZE) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * (size // 2) ** 2, classes),
        *ends,
    ).eval()


def safe(model: nn.Module) -> safe_form.SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(model.eval())))


def compute(model: nn.Module, images: Dataset) -> ActivationMaximization:
    return func.compute(model=safe(model), dataset=images, device="cpu")


def made(
    model: nn.Module, images: Dataset, targets: list[int], steps: int = 10, method: str = "maco", seed: int = 0
) -> np.ndarray:
    """Return pictures of these targets after a few steps."""
    built, pixels = safe(model), images.part("test").images
    classifier = fit(built, pixels, images.description, "cpu")
    recipe = Recipe("maco" if method == "maco" else "pixel", steps, 1, seed)
    return pictures_of(scores_of(classifier, built, pixels), targets, prior_of(pixels, "cpu"), classifier, recipe)


def cut(sheet: bytes, place: Place) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(sheet)))
    shown = pixels[place.y : place.y + place.h, place.x : place.x + place.w]
    return shown if shown.ndim == 3 else shown[..., None]


def seen(pictures: np.ndarray, images: Dataset) -> Tensor:
    return normalised(pictures.astype(np.uint8), images.description, "cpu")


@pytest.fixture(scope="module")
def images() -> Dataset:
    return dataset()


@pytest.fixture(scope="module")
def product(images: Dataset) -> ActivationMaximization:
    return compute(cnn(), images)


@pytest.fixture(scope="module")
def pictures(product: ActivationMaximization) -> np.ndarray:
    """Return the pictures of the classes, as they are on the sheet."""
    return np.stack([cut(product.pictures, one.place) for one in product.classes])


def moved(pictures: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return pictures (P, H, W, C) moved, by padding with the edge and cutting out."""
    height, width = pictures.shape[1:3]
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


@pytest.mark.slow
def test_figures_are_those_of_the_stored_pictures(
    product: ActivationMaximization, pictures: np.ndarray, images: Dataset
) -> None:
    model, classes = cnn(), np.arange(10)
    assert product.shift == 1
    with torch.inference_mode():
        logits = model(seen(pictures, images))
        shifted = torch.stack(
            [model(seen(moved(pictures, *by), images)) for by in ((-1, -1), (-1, 1), (1, -1), (1, 1))]
        )
        beside = [one.nearest.index for one in product.classes if one.nearest]
        nearest = model(seen(images.part("test").images[beside], images))
    p = logits.double().softmax(1)
    for k, one in enumerate(product.classes):
        assert (one.target, one.name) == (k, f"c{k}")
        assert one.score == pytest.approx(float(logits[k, k]), abs=1e-4)
        assert one.nearest_score == pytest.approx(float(nearest[k, k]), abs=1e-4)
        assert one.probability == pytest.approx(float(p[k, k]), abs=1e-4)
        assert one.predicted == int(logits[k].argmax())
        assert one.shifted_score == pytest.approx(float(shifted[:, k, k].mean()), abs=1e-4)
        assert one.shifted_probability == pytest.approx(float(shifted.double().softmax(2)[:, k, k].mean()), abs=1e-4)
    recognised = (shifted.argmax(2) == torch.tensor(classes)).double().mean(0)
    assert [one.shifted_recognised for one in product.classes] == recognised.tolist()


@pytest.mark.slow
def test_pictures_raise_their_class_above_every_image_of_the_dataset(
    product: ActivationMaximization, images: Dataset
) -> None:
    with torch.inference_mode():
        natural = cnn()(seen(images.part("test").images, images)).amax(0)
    for one, best in zip(product.classes, natural.tolist(), strict=True):
        assert one.score is not None
        assert one.score > best


@pytest.mark.slow
def test_the_image_beside_a_picture_is_the_nearest_by_what_the_last_layer_is_given(
    product: ActivationMaximization, pictures: np.ndarray, images: Dataset
) -> None:
    test = images.part("test")
    assert (product.nearest_layer, product.searched) == ("6", len(test))
    with torch.inference_mode():
        features = cnn()[:6](seen(np.concatenate([pictures, test.images]), images)).double().numpy()
    distances = np.sqrt(np.square(features[10:][None] - features[:10][:, None]).sum(axis=2))
    for k, one in enumerate(product.classes):
        assert one.nearest is not None
        assert distances[k, one.nearest.index] <= distances[k].min() * (1 + 1e-5)
        assert one.nearest.label == test.labels[one.nearest.index]
    for other in (*product.classes, *product.channels):
        assert other.nearest is not None
        assert other.nearest.place == other.place
        assert (cut(product.nearest_images, other.place) == test.images[other.nearest.index]).all()


def patches(count: int = 200) -> Dataset:
    """Return images with a class's own pixel lit, dimly, under a loud pattern that says nothing of the class."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 10
    images = random.choice(np.array([0, 255], np.uint8), (count, 8, 8, 1))
    images[:, :2] = 0
    images.reshape(count, 64)[np.arange(count), labels] = 60
    described = dataset(size=8, count=count).description
    return Dataset(described, {"test": PartArrays(images, labels.astype(np.int64))})


def looking_at_own_pixels() -> nn.Module:
    """Return a network whose features are the ten pixels that tell the classes, and whose logits are these, larger."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 10))
    with torch.no_grad():
        for layer, scale in ((model[1], 1.0), (model[2], 20.0)):
            layer.weight.copy_(scale * torch.eye(10, layer.in_features))
            layer.bias.zero_()
    return model


def test_by_the_models_features_the_nearest_image_is_of_the_class_where_by_pixels_it_is_not() -> None:
    images = patches()
    test, classes = images.part("test"), np.arange(10)
    pictures = test.images[(classes + 1) % 10].copy()  # the loud pattern of an image of another class
    pictures[:, :2] = 0
    pictures.reshape(10, 64)[classes, classes] = 60
    model = safe(looking_at_own_pixels())
    classifier = fit(model, test.images, images.description, "cpu")
    distances = np.square(test.images[None].astype(float) - pictures[:, None]).sum(axis=(2, 3, 4))
    assert (test.labels[distances.argmin(1)] != classes).all()
    assert (classifier.outputs(pictures, 10).argmax(1) == classes).all()
    found = nearest_images(pictures, model, classifier, test, len(test))
    assert (found.layer, test.labels[found.indices].tolist()) == ("2", classes.tolist())


@pytest.mark.slow
def test_a_model_without_features_is_compared_by_its_outputs_and_a_dear_one_on_some_of_each_class(
    images: Dataset,
) -> None:
    class Blocks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.adaptive_avg_pool2d(x, (2, 5)).flatten(1)

    test = images.part("test")
    model = safe(Blocks())
    classifier = fit(model, test.images, images.description, "cpu")
    assert nearest_images(test.images[[5, 70]], model, classifier, test, 90) == NearestImages([5, 70], None, 90)
    assert nearest_images(test.images[[5]], model, classifier, test, 90).indices == [5]
    some = nearest_images(test.images, model, classifier, test, 20)
    assert some.searched == 20
    assert {int(test.labels[one]) for one in some.indices} == set(range(10))
    assert [affordable_images(90, 10**6, one) for one in (1, 10**4, 10**5, 10**9)] == [90, 90, 16, 16]
    assert affordable_images(5_000, 10**6, 1) == 2_000
    assert affordable_images(5_000, 10**6, 1_000) == 1_000


def test_what_rises_is_the_log_odds_of_a_class_and_the_score_of_a_channel() -> None:
    scores = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul_(4).requires_grad_()
    targets = torch.tensor([[0], [3], [2], [4], [6]])  # of four classes, and three channels behind them
    p = scores[:3, :4].softmax(1).gather(1, targets[:3])
    (expected,) = torch.autograd.grad(torch.special.logit(p).sum() + scores[3, 4] + scores[4, 6], scores)
    torch.testing.assert_close(uphill(scores.detach(), targets, 4), expected, rtol=1e-9, atol=1e-12)


def test_a_class_alone_and_the_pixel_method_raise_the_score_itself() -> None:
    scores, targets = torch.randn(2, 3), torch.tensor([[0], [2]])
    alone = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    assert torch.equal(uphill(scores, targets, 1), alone)
    assert torch.equal(uphill(scores, targets, 0), alone)


def test_a_score_that_is_sure_of_its_class_still_rises() -> None:
    up = uphill(torch.tensor([[80.0, 0, 1]]), torch.tensor([[0]]), 3)
    torch.testing.assert_close(up, torch.tensor([[1, -0.268941, -0.731059]]))


@pytest.mark.slow
def test_channels_are_those_of_the_last_convolution_measured_behind_its_norm(
    product: ActivationMaximization, images: Dataset
) -> None:
    model = cnn()
    assert product.layer is not None
    assert (product.layer.name, product.layer.call, product.layer.measured, product.layer.channels) == ("2", 0, "3", 6)
    assert [one.target for one in product.channels] == list(range(6))
    shown = np.stack([cut(product.pictures, one.place) for one in product.channels])
    with torch.inference_mode():
        means = model[:4](seen(shown, images)).mean((2, 3))
        natural = model[:4](seen(images.part("test").images, images)).mean((2, 3)).mean(0)
    for k, one in enumerate(product.channels):
        assert one.score == pytest.approx(float(means[k, k]), abs=1e-4)
        assert one.score > natural[k]


@pytest.mark.slow
def test_the_product_says_what_its_pictures_do_not_prove_and_how_they_were_made(
    product: ActivationMaximization,
) -> None:
    assert "does not prove" in product.caveat
    assert (product.method, product.objective) == ("maco", "logits")
    assert product.headline()["classes"] == 10
    told = [one.shifted_probability for one in product.classes]
    assert product.headline()["shifted_probability"] == pytest.approx(np.mean([p for p in told if p is not None]))


@pytest.mark.slow
def test_a_control_is_what_the_recipe_makes_of_new_weights_and_its_figures_are_the_models_own(
    product: ActivationMaximization, images: Dataset
) -> None:
    drawn = untrained(safe(cnn()), 0)
    every = (*product.classes, *product.channels)
    targets = [one.target for one in product.classes] + [10 + one.target for one in product.channels]
    recipe, pixels = Recipe("maco", 100, product.shift, 0), images.part("test").images
    classifier = fit(drawn, pixels, images.description, "cpu")
    assert isinstance(drawn, safe_form.SafeModel)
    scores = scores_of(classifier, drawn, pixels)
    expected = pictures_of(scores, targets, prior_of(spread(pixels, 1_000), "cpu"), classifier, recipe)
    assert all(one.control for one in every)
    controls = np.stack([cut(product.controls, one.control.place) for one in every if one.control])
    assert np.abs(controls.astype(int) - expected).max() <= 1
    assert not np.array_equal(controls, np.stack([cut(product.pictures, one.place) for one in every]))
    with torch.inference_mode():
        channels, logits = cnn()[:4](seen(controls, images)).mean((2, 3)), cnn()(seen(controls, images))
    p = logits.double().softmax(1)
    for k, one in enumerate(product.classes):
        assert one.control is not None
        assert one.control.score == pytest.approx(float(logits[k, k]), abs=1e-4)
        assert one.control.probability == pytest.approx(float(p[k, k]), abs=1e-4)
    for k, other in enumerate(product.channels):
        assert other.control is not None and other.control.probability is None
        assert other.control.score == pytest.approx(float(channels[10 + k, k]), abs=1e-4)


def learnt(images: Dataset) -> nn.Module:
    """Return the network trained until it is right on the images."""
    model, test = cnn(), images.part("test")
    steps = torch.optim.Adam(model.parameters(), 0.01)
    model.train()
    for _ in range(60):
        steps.zero_grad()
        functional.cross_entropy(model(seen(test.images, images)), torch.tensor(test.labels)).backward()
        steps.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pictures_of_a_trained_network_exceed_their_controls_and_those_of_another_draw_do_not(seed: int) -> None:
    given = dataset()
    trained = learnt(given)
    found = compute(trained, given).control
    assert found.verdict == "beyond"
    assert (found.classes, found.own) == (10, 10) and found.control < 5
    assert compute(untrained(trained, seed + 100), given).control.verdict == "not_beyond"


def test_the_verdict_is_mcnemars_on_classes_whose_nearest_image_is_their_own() -> None:
    labels = np.arange(10)
    shuffled = np.roll(labels, 1).tolist()
    for classes, own, control, verdict in (
        (10, labels.tolist(), shuffled, "beyond"),
        (10, shuffled, labels.tolist(), "not_beyond"),
        (10, labels.tolist(), labels.tolist(), "not_beyond"),
        (6, labels.tolist(), shuffled, "beyond"),
        (5, labels.tolist(), shuffled, "too_few"),
        (10, labels.tolist(), [*labels[:4], *shuffled[4:]], "beyond"),
        (10, labels.tolist(), [*labels[:5], *shuffled[5:]], "not_beyond"),
        (10, [-1] * 10, [-1] * 10, "not_beyond"),
    ):
        found = held_against(own, control, classes, labels)
        right = [[at == target for target, at in enumerate(some[:classes])] for some in (own, control)]
        assert (found.own, found.control) == (sum(right[0]), sum(right[1]))
        only = (
            sum(a and not b for a, b in zip(*right, strict=True)),
            sum(b and not a for a, b in zip(*right, strict=True)),
        )
        truth = binomtest(only[0], sum(only), 0.5).pvalue if sum(only) else 1.0
        assert found.p_value == pytest.approx(truth)
        assert found.verdict == verdict


@pytest.mark.slow
def test_two_runs_give_the_same_bytes_and_another_seed_other_pictures(
    product: ActivationMaximization, images: Dataset
) -> None:
    again = compute(cnn(), images)
    assert again.model_dump_json() == product.model_dump_json()
    for sheet in ("pictures", "nearest_images", "controls"):
        assert getattr(again, sheet) == getattr(product, sheet)
    first, other = (made(cnn(), images, [0, 1], steps=3, seed=seed) for seed in (0, 1))
    assert (first != other).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["maco", "pixel"])
def test_a_picture_is_the_same_whichever_others_are_made_with_it(method: str, images: Dataset) -> None:
    model = cnn()
    together = made(model, images, [3, 0, 12, 7], method=method)
    alone = np.concatenate([made(model, images, [target], method=method) for target in (3, 0, 12, 7)])
    assert np.abs(together.astype(int) - alone).max() <= 1


@pytest.mark.slow
def test_pictures_that_need_more_than_one_chunk_are_those_of_one_chunk() -> None:
    large = dataset(size=160, count=12)
    model = cnn(size=160)
    assert 1 < CHUNK_ON_CPU // 160**2 < 5
    together, apart = made(model, large, [4, 1, 0, 2, 3], steps=2), made(model, large, [3], steps=2)
    assert np.abs(together[4].astype(int) - apart[0]).max() <= 1
    assert len(together) == 5


class Functional(nn.Module):
    """Ends in a softmax that is no layer."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.end = cnn(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.inner(x))


ENDS: dict[str, nn.Module] = {
    "Softmax": cnn(nn.Softmax(1)),
    "LogSoftmax": cnn(nn.LogSoftmax(1)),
    "Softmax, Identity": cnn(nn.Softmax(1), nn.Identity()),
    "softmax": Functional(lambda x: functional.softmax(x, dim=1)),
    "log_softmax": Functional(lambda x: functional.log_softmax(x, dim=1)),
    "method, log": Functional(lambda x: x.softmax(dim=1).log()),
    "dropout": Functional(lambda x: functional.dropout(x.log_softmax(-1), training=False)),
}


@pytest.mark.parametrize("end", ENDS)
def test_logits_are_raised_also_where_the_model_ends_in_a_softmax(end: str, images: Dataset) -> None:
    expected = made(cnn(), images, [2, 5], steps=5)
    assert (made(ENDS[end], images, [2, 5], steps=5) == expected).all()
    assert scores(ENDS[end], images).objective == "logits"


def scores(model: nn.Module, images: Dataset) -> ScoredModel:
    built, pixels = safe(model), images.part("test").images
    return scores_of(fit(built, pixels, images.description, "cpu"), built, pixels)


@pytest.mark.slow
def test_log_probabilities_are_raised_where_a_model_makes_its_own_probabilities(images: Dataset) -> None:
    model = Functional(lambda x: x.exp() / x.exp().sum(1, keepdim=True))
    found = scores(model, images)
    assert found.objective == "log_probabilities"
    batch = seen(images.part("test").images[:5], images)
    with torch.inference_mode():
        torch.testing.assert_close(found(batch)[:, :10], cnn()(batch).log_softmax(1), atol=1e-4, rtol=0)
    assert len(made(model, images, [1], steps=2)) == 1


def test_a_softmax_inside_the_model_is_left_there(images: Dataset) -> None:
    model = nn.Sequential(*cnn(nn.Softmax(1)), nn.Linear(10, 10))
    batch = seen(images.part("test").images[:5], images)
    with torch.inference_mode():
        torch.testing.assert_close(scores(model, images)(batch)[:, :10], model.eval()(batch))


@pytest.mark.slow
def test_the_pixel_method_is_adam_on_clamped_noise(images: Dataset) -> None:
    model, targets, steps = cnn().requires_grad_(False), [6, 1], 30
    noise = [torch.randn(1, SIZE, SIZE, generator=torch.Generator().manual_seed(target)) for target in targets]
    x = torch.stack(noise).requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.1, maximize=True)
    for _ in range(steps):
        optimiser.zero_grad()
        model(x)[[0, 1], targets].sum().backward()
        optimiser.step()
        x.data.clamp_(-MEAN / STD, (1 - MEAN) / STD)
    expected = (x.detach() * STD + MEAN).mul(255).round().permute(0, 2, 3, 1).numpy()
    ours = made(model, images, targets, steps, "pixel")
    assert (np.abs(ours - expected) > 1).mean() < 0.01  # Adam takes the sign of gradients near 0 too


@pytest.mark.parametrize(("size", "channels"), [((8, 10), 1), ((9, 7), 3)])
def test_the_gradient_of_the_phases_is_that_of_autograd_in_float64(size: tuple[int, int], channels: int) -> None:
    random, (height, width) = np.random.default_rng(0), size
    prior = prior_of(random.integers(0, 256, (20, height, width, channels), np.uint8), "cpu")
    prior = Prior(*(part.double() for part in (prior.mean, prior.deviation, prior.colours, prior.magnitudes)))
    rendering = Rendering(prior, *(torch.full((channels, 1, 1), value).double() for value in (MEAN, STD)))
    phases = torch.tensor(random.uniform(0, 6, (2, channels, height, width // 2 + 1)))
    weights = torch.tensor(random.standard_normal((2, channels, height, width)))

    def plain(phases: Tensor) -> Tensor:
        fields = torch.fft.irfft2(torch.polar(prior.magnitudes, phases), s=(height, width), norm="ortho")
        coloured = torch.einsum("cd,ndhw->nchw", prior.colours, fields)
        shown = ((prior.mean + prior.deviation * coloured).clamp(0, 1) - MEAN) / STD
        return shown.flatten(2).roll(width + 2, 2).view(shown.shape)

    found = []
    for render in (lambda phases: rendering.shown(phases, width + 2), plain):
        variable = phases.clone().requires_grad_()
        shown = render(variable)
        found.append((shown.detach(), *torch.autograd.grad((shown * weights).sum(), variable)))
    (ours, our_gradient), (truth, gradient) = found
    torch.testing.assert_close(ours, truth)
    # The imaginary parts of what is its own mirror image count for nothing, which autograd leaves out in another way.
    inner = slice(1, (width + 1) // 2)
    torch.testing.assert_close(our_gradient[..., inner], gradient[..., inner])
    assert gradient[..., inner].abs().max() > 0.1


def test_the_prior_is_that_of_plain_numpy() -> None:
    pixels = dataset(channels=3).part("test").images[:, :, :10]
    prior, x = prior_of(pixels, "cpu"), pixels.transpose(0, 3, 1, 2) / 255
    deviation = x.std(0) + LEAST_DEVIATION
    np.testing.assert_allclose(prior.mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(prior.deviation, deviation, atol=1e-6)
    left = (x - x.mean(0)) / deviation
    colours = prior.colours.double().numpy()
    turned = np.einsum("cd,nchw->dnhw", colours, left)
    covariance = np.einsum("anhw,bnhw->ab", turned, turned)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3 * covariance.max())
    np.testing.assert_allclose(colours.T @ colours, np.eye(3), atol=1e-6)
    magnitudes = np.abs(np.fft.rfft2(turned, norm="ortho")).mean(1)
    np.testing.assert_allclose(prior.magnitudes, magnitudes, rtol=1e-4, atol=1e-5)


def test_statistics_are_of_images_spread_over_the_whole_part() -> None:
    numbers = np.arange(50).astype(np.uint8)[:, None, None, None]
    assert spread(numbers, 10).ravel().tolist() == list(range(0, 50, 5))
    assert spread(numbers, 60) is numbers


@pytest.mark.slow
def test_a_hundred_and_twenty_classes_and_many_channels_are_cut_and_counted() -> None:
    wide = nn.Sequential(
        nn.Conv2d(1, 200, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(200, 120)
    )
    found = compute(wide, dataset(classes=120, size=8, count=240))
    assert (len(found.classes), found.classes_left_out) == (100, 20)
    assert (len(found.channels), found.channels_left_out) == (32, 168)
    assert len(found.pictures) + len(found.nearest_images) + len(found.model_dump_json()) < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 2, 26])
def test_models_of_other_numbers_of_classes_have_a_picture_for_each(classes: int) -> None:
    found = compute(cnn(classes=classes, size=8), dataset(classes=classes, size=8, count=60))
    assert [one.target for one in found.classes] == list(range(classes))
    assert all(one.score is not None for one in found.classes)


def test_outputs_before_the_first_label_are_left_out(images: Dataset) -> None:
    described = images.description.model_copy(update={"first_label": 1})
    eleven = cnn(classes=11)
    shifted = Dataset(described, {"test": images.part("test")})
    batch = seen(images.part("test").images[:5], images)
    with torch.inference_mode():
        torch.testing.assert_close(scores(eleven, shifted)(batch)[:, :10], eleven(batch)[:, 1:])


@pytest.mark.slow
def test_pictures_of_three_channels_are_in_colour() -> None:
    coloured = dataset(size=8, channels=3)
    found = compute(cnn(channels=3, size=8), coloured)
    assert Image.open(io.BytesIO(found.pictures)).mode == "RGB"
    picture = cut(found.pictures, found.classes[3].place)
    assert picture.shape == (8, 8, 3)
    with torch.inference_mode():
        logits = cnn(channels=3, size=8)(seen(picture[None], coloured))
    assert found.classes[3].score == pytest.approx(float(logits[0, 3]), abs=1e-4)


@pytest.mark.slow
def test_a_model_without_a_convolution_has_pictures_of_its_classes_alone() -> None:
    found = compute(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), dataset(size=8))
    assert (len(found.classes), found.layer, found.channels, found.channels_left_out) == (10, None, (), 0)


class Rows(nn.Module):
    """Convolves rows, runs an LSTM over them, and attends to what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = self.lstm(self.conv(x.squeeze(1)))
        answer, _ = self.attention(rows, rows, rows, need_weights=False)
        return self.head((rows + answer).mean(1))


@pytest.mark.slow
def test_a_model_of_sequences_has_pictures_of_its_classes() -> None:
    torch.manual_seed(0)
    model, small = Rows(), dataset(size=8)
    shown = made(model, small, list(range(10)), steps=20)
    assert scores(model, small).layer is None
    with torch.inference_mode():
        before, after = (
            model.eval()(seen(some, small)).diagonal() for some in (made(model, small, [*range(10)], 0), shown)
        )
    assert (after > before).all()


@pytest.mark.slow
def test_the_model_is_left_as_it_was(images: Dataset) -> None:
    model = safe(cnn())
    batch = seen(images.part("test").images[:4], images)
    with torch.inference_mode():
        before = model(batch)
        func.compute(model=model, dataset=images, device="cpu")
        torch.testing.assert_close(model(batch), before)
    assert not model.safe_taps


def test_a_model_that_rounds_on_the_way_to_its_scores_is_refused(images: Dataset) -> None:
    with pytest.raises(Refused) as refused:
        made(Functional(lambda x: (x > 0).float()), images, [0])
    assert refused.value.code == "no-gradient"


@pytest.mark.slow
def test_scores_that_are_not_finite_are_null(images: Dataset) -> None:
    found = compute(Functional(lambda x: x / 0), images)
    assert {one.score for one in found.classes} == {None}
    assert {one.predicted for one in found.classes} == {None}
    assert {one.shifted_recognised for one in found.classes} == {0.0}
    assert all(one.nearest is not None for one in found.classes)  # what is compared lies before what overflows
    assert found.headline()["shifted_probability"] is None


def test_a_dear_model_has_fewer_pictures_and_one_at_least(images: Dataset) -> None:
    pixels, model = images.part("test").images, safe(cnn())
    classifier = fit(model, pixels, images.description, "cpu")
    one = 8 * 9 * 144 + 6 * 8 * 9 * 36 + 6 * 36 * 10  # multiply-adds of a forward pass
    assert cost_of_one(classifier, pixels) == one
    assert capacity(144, one, 10**9, 7 * one) == 7
    assert capacity(144, one, 10**9, 7 * one - 1) == 6
    assert capacity(144, one, 5 * 144, 7 * one) == 5
    assert capacity(144, one, 1, 1) == 1


@pytest.mark.slow
def test_where_nothing_that_the_model_makes_is_finite_no_image_stands_beside_a_picture(images: Dataset) -> None:
    class Overflowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.adaptive_avg_pool2d(x, (2, 5)).flatten(1) / 0

    found = compute(Overflowing(), images)
    assert {one.nearest for one in found.classes} == {one.nearest_score for one in found.classes} == {None}
    assert found.nearest_layer is None
    assert not np.asarray(Image.open(io.BytesIO(found.nearest_images))).any()
