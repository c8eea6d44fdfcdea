"""Layer vectors: inner products are the similarities they should be, and layers that mean nothing are told apart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from layerscope.functions.analysis.representation.grams import gram
from layerscope.functions.analysis.representation.responses import responses
from layerscope.functions.analysis.representation.vectors import Gram, label_gram, neighbours, packed, without
from layerscope.functions.layer_vectors import func
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors
from layerscope.stores.datasets import Dataset, PartArrays
from tests.tables import cka_scores


def hsic_1(k: np.ndarray, m: np.ndarray) -> float:
    """Return the unbiased estimator of Song et al. 2012, eq. 5, of two Gram matrices, term by term."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    both = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return float(both / (n * (n - 3)))


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return hsic_1(k, m) / math.sqrt(hsic_1(k, k) * hsic_1(m, m))


def features(n: int, p: int, seed: int = 0) -> np.ndarray:
    """Return features of which images share a part, so that similarities are not all near 0."""
    random = np.random.default_rng(seed)
    return random.standard_normal((n, 4)) @ random.standard_normal((4, p)) + random.standard_normal((n, p))


def vector_of(x: np.ndarray) -> np.ndarray:
    vector = packed(x @ x.T)
    assert vector is not None
    return vector


def test_scores_are_those_of_published_packages_on_the_same_responses() -> None:
    recorded, layers = json.loads(cka_scores.RECORDED.read_text()), cka_scores.responses()
    vectors = {name: packed(gram(torch.tensor(rows, dtype=torch.float32)).centred) for name, rows in layers.items()}
    apart = []
    for one in recorded["scores"]:
        first, second = vectors[one["a"]], vectors[one["b"]]
        assert first is not None and second is not None
        score = float(first @ second)
        # One of them cuts off what is below 0; and an offset of 10 takes a few of their digits, even in float64.
        apart += [abs(max(score, 0.0) - one["pytorch-cka"]), abs(score - one["torch_cka"])]
    print(f"{len(apart)} scores of {recorded['versions']}: apart by {max(apart):.1e} at most")
    assert len(apart) == 42
    assert max(apart) < 1e-6


def described(count: int, shape: tuple[int, int, int] = (12, 12, 1)) -> DatasetDescription:
    return DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(10)),
        shape=shape,
        mean=(0.5,) * shape[2],
        std=(0.25,) * shape[2],
        parts={"probe": {"sha256": "0" * 64, "images": count}},
    )


def probe(count: int = 40) -> Dataset:
    """Return blurred noise with a pattern of its own for each class."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 10
    coarse = random.random((10, 4, 4))[labels] + 0.5 * random.random((count, 4, 4))
    images = np.kron(coarse, np.ones((3, 3)))[..., None] / 1.5 * 255
    return Dataset(described(count), {"probe": PartArrays(images.astype(np.uint8), labels)})


def compute(model: nn.Module, dataset: Dataset | None = None) -> LayerVectors:
    return func.compute(model=model.eval(), dataset=dataset or probe(), device="cpu")


def small_cnn(seed: int = 0, inplace: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(6, 12, 3, stride=2),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=inplace),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 10),
    )


@settings(max_examples=60, deadline=None)
@given(n=st.integers(5, 60), p=st.integers(1, 300), q=st.integers(1, 300), seed=st.integers(0, 9_999))
def test_the_inner_product_of_two_vectors_is_the_ratio_of_song_s_hsic_1(n: int, p: int, q: int, seed: int) -> None:
    x, y = features(n, p, seed), features(n, q, seed + 1) + features(n, q, seed)
    assert vector_of(x) @ vector_of(y) == pytest.approx(debiased_cka(x, y), abs=1e-10)
    assert len(vector_of(x)) == n * (n - 1) // 2


def test_a_centred_gram_packs_to_the_same_vector_as_a_raw_one() -> None:
    x = features(100, 500) + 3
    np.testing.assert_allclose(vector_of(x - x.mean(0)), vector_of(x), atol=1e-12)
    assert len(vector_of(x)) == 4_950


def test_a_layer_rotated_scaled_and_shifted_is_the_same_layer() -> None:
    x = features(50, 30)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((30, 30)))[0]
    assert vector_of(x) @ vector_of(7.5 * x @ rotation + 2) == pytest.approx(1, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(500, 500), (3, 4_000)])
def test_under_random_pairing_the_score_has_the_standard_deviation_of_the_formula(widths: tuple[int, int]) -> None:
    n, random = 100, np.random.default_rng(7)
    x, y = (features(n, p, seed=p) for p in widths)
    fixed = np.zeros((n, n))
    fixed[np.triu_indices(n, 1)] = vector_of(x)
    other = np.zeros((n, n))
    other[np.triu_indices(n, 1)] = vector_of(y)
    other += other.T
    scores = np.array([np.vdot(fixed, other[np.ix_(order, order)]) for order in map(random.permutation, [n] * 4_000)])
    assert math.sqrt(2 / (n * (n - 3))) == pytest.approx(0.01436, abs=5e-6)
    assert scores.std() == pytest.approx(0.01436, rel=0.05)
    assert abs(scores.mean()) < 4 * 0.01436 / math.sqrt(4_000)


def test_unrelated_wide_layers_score_about_zero() -> None:
    random = np.random.default_rng(3)
    x, y = random.standard_normal((2, 100, 20_000))
    assert abs(vector_of(x) @ vector_of(y)) < 4 * 0.01436


def test_taking_the_input_out_gives_the_partial_correlation() -> None:
    u, v, w = (vector_of(features(60, 200, seed) + 0.7 * features(60, 200, 99)) for seed in (1, 2, 3))
    vu, wu = v @ u, w @ u
    partial = (v @ w - vu * wu) / math.sqrt((1 - vu**2) * (1 - wu**2))
    assert without(v, u) @ without(w, u) == pytest.approx(partial, abs=1e-12)
    assert without(v, u) @ u == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def graph_of(x: np.ndarray) -> np.ndarray:
    """Return the symmetric graph of ten nearest neighbours by scikit-learn, with each image its own."""
    directed = NearestNeighbors(n_neighbors=10).fit(x).kneighbors_graph().toarray()
    return (directed + directed.T) / 2 + np.eye(len(x))


def test_the_inner_product_of_two_graphs_is_what_scikit_learn_s_neighbours_give_in_song_s_hsic_1() -> None:
    x, y = features(40, 30, 1), features(40, 30, 1) + 2 * features(40, 30, 2)
    first, second = (neighbours(centred_gram(one)) for one in (x, y))
    assert first is not None and second is not None
    k, m = graph_of(x), graph_of(y)
    assert first @ second == pytest.approx(hsic_1(k, m) / np.sqrt(hsic_1(k, k) * hsic_1(m, m)), abs=1e-10)
    # Neither an outlier's size, nor rotation, scale and offset matter
    far = x.copy()
    far[0] *= 50
    moved = neighbours(centred_gram(far))
    assert moved is not None and moved @ first > 0.9
    turned = np.linalg.qr(features(30, 30, 3))[0]
    assert neighbours(centred_gram(3 * x @ turned + 7)) @ first == pytest.approx(1)


def test_neighbours_of_images_that_are_all_alike_or_unrelated_mean_nothing() -> None:
    pair = (neighbours(centred_gram(features(100, 50, seed))) for seed in (1, 2))
    assert abs(float(np.dot(*pair))) < 4 * np.sqrt(2 / (100 * 97))
    product = compute(small_cnn())
    inputs = probe().part("probe").images.reshape(40, -1) / 255
    confounder = neighbours(centred_gram(inputs))
    assert confounder is not None
    assert np.abs(product.neighbours[1:] @ confounder).max() < 1e-5
    np.testing.assert_allclose(np.linalg.norm(product.neighbours[1:], axis=1), 1, atol=1e-6)


def centred_gram(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)
    return centred @ centred.T


@pytest.mark.parametrize("offset", [0.0, 10.0, 1_000.0])
def test_a_common_offset_costs_no_digits(offset: float) -> None:
    seen = torch.tensor(features(100, 70_000) + offset, dtype=torch.float32)
    exact = seen.double().numpy()
    expected = vector_of(exact - exact.mean(0))
    vector = packed(gram(seen).centred)
    assert vector is not None
    assert 1 - vector @ expected < 1e-12
    assert np.abs(vector - expected).max() < 1e-7


def test_a_gram_in_chunks_is_that_of_float64() -> None:
    x = features(30, 150_000)
    centred = x - x.mean(0)
    found = gram(torch.tensor(x, dtype=torch.float32))
    expected = centred @ centred.T
    np.testing.assert_allclose(found.centred, expected, atol=1e-6 * np.trace(expected))
    assert found.energy == pytest.approx(np.square(x).sum(), rel=1e-6)
    assert (found.centred == found.centred.T).all()


def test_health_is_participation_ratio_and_largest_share_of_the_trace() -> None:
    centred = features(40, 9) - features(40, 9).mean(0)
    spectrum = np.linalg.eigvalsh(centred @ centred.T)
    found = Gram(centred @ centred.T, energy=1.0)
    assert found.effective_dimension == pytest.approx(spectrum.sum() ** 2 / np.square(spectrum).sum())
    assert found.max_leverage == pytest.approx(np.square(centred).sum(1).max() / np.square(centred).sum())


def test_a_gram_without_a_pattern_has_no_vector() -> None:
    n = 50
    assert packed(np.zeros((n, n))) is None
    assert packed(np.eye(n) * 7) is None  # all images equally far apart
    one_apart = torch.zeros(n, 3)
    one_apart[17] = torch.tensor([3.0, 0.1, -2.0])
    assert packed(gram(one_apart).centred) is None
    assert packed(label_gram(np.zeros(n, np.int64))) is None
    assert packed(label_gram(np.arange(n) % 2)) is not None


def conv_responses(model: nn.Module, dataset: Dataset) -> list[np.ndarray]:
    """Return the output of each weight layer of a Sequential, in float64, one image a row; nothing is in place here."""
    batch = torch.tensor(dataset.part("probe").images).permute(0, 3, 1, 2).double()
    batch = (batch / 255 - 0.5) / 0.25
    found = []
    with torch.no_grad():
        for layer in model:
            batch = torch.relu(batch) if isinstance(layer, nn.ReLU) else layer(batch)
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                found.append(batch.flatten(1).numpy().copy())
    return found


def test_vectors_are_those_of_a_float64_forward_pass_also_before_an_in_place_relu() -> None:
    dataset, product = probe(), compute(small_cnn(inplace=True))
    expected = conv_responses(small_cnn(inplace=False).double().eval(), dataset)
    assert [layer.name for layer in product.layers] == ["0", "2", "6"]
    inputs = dataset.part("probe").images.reshape(40, -1) / 255
    labels = np.eye(10)[dataset.part("probe").labels]
    for k, response in enumerate(expected):
        np.testing.assert_allclose(product.cka[k], vector_of(response), atol=1e-6)
        assert product.layers[k].input_cka == pytest.approx(debiased_cka(response, inputs), abs=1e-6)
        assert product.layers[k].label_cka == pytest.approx(debiased_cka(response, labels), abs=1e-6)


def test_the_product_has_the_declared_shapes_and_unit_vectors() -> None:
    product = compute(small_cnn())
    assert (product.images, len(product.probe)) == (40, 32)
    assert [layer.shape for layer in product.layers] == [(6, 10, 10), (12, 4, 4), (10,)]
    assert [layer.type for layer in product.layers] == ["Conv2d", "Conv2d", "Linear"]
    assert (product.grams.shape, product.cka.shape, product.deconfounded.shape) == ((3, 820), (3, 780), (3, 780))
    assert {product.grams.dtype, product.cka.dtype, product.deconfounded.dtype} == {np.dtype(np.float32)}
    np.testing.assert_allclose(np.linalg.norm(product.cka, axis=1), 1, atol=1e-6)
    assert product.headline() == {"layers": 3, "comparable": 3}


def test_vectors_can_be_made_again_from_the_stored_grams() -> None:
    product = compute(small_cnn())
    for triangle, vector in zip(product.grams, product.cka, strict=True):
        whole = np.zeros((40, 40))
        whole[np.triu_indices(40)] = triangle
        whole += np.triu(whole, 1).T
        assert np.abs(whole.sum(0)).max() < 1e-4 * np.trace(whole)
        remade = packed(whole)
        assert remade is not None
        np.testing.assert_allclose(remade, vector, atol=1e-6)


def test_the_same_model_gives_the_same_bytes() -> None:
    first, second = compute(small_cnn()), compute(small_cnn())
    for name in ("grams", "cka", "deconfounded", "neighbours"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert first.model_dump_json() == second.model_dump_json()


@pytest.mark.parametrize("budget", [10_000, 40_000, 90_000])
def test_small_batches_and_several_passes_give_the_grams_of_one_batch(budget: int) -> None:
    model, images = small_cnn().eval(), probe().part("probe").images
    whole = responses(model, images, described(40), "cpu")
    parts = responses(model, images, described(40), "cpu", budget)
    assert [one.call for one in parts] == [one.call for one in whole]
    assert [one.shape for one in parts] == [one.shape for one in whole]
    for one, other in zip(whole, parts, strict=True):
        assert one.gram is not None
        assert other.gram is not None
        np.testing.assert_allclose(other.gram.centred, one.gram.centred, atol=1e-5 * np.trace(one.gram.centred))


class Shared(nn.Module):
    """Uses one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.head = nn.Linear(144, 10)

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(torch.relu(self.conv(batch)))).flatten(1))


def test_each_call_of_a_shared_layer_is_a_layer() -> None:
    product = compute(Shared())
    assert [layer.id for layer in product.layers] == ["conv", "conv:1", "head"]
    assert product.cka[0] @ product.cka[1] < 0.999


def test_a_layer_that_passes_the_images_on_is_input_like_and_has_no_deconfounded_vector() -> None:
    copying = nn.Conv2d(1, 3, 3, padding=1)
    with torch.no_grad():
        copying.weight.zero_()
        copying.weight[:, 0, 1, 1] = torch.tensor([1.0, -0.5, 2.0])
    torch.manual_seed(0)
    product = compute(nn.Sequential(copying, nn.ReLU(), nn.Flatten(), nn.Linear(432, 10)))
    first, second = product.layers[0], product.layers[1]
    assert first.input_like
    assert first.state == "ok"
    assert 1 - first.input_cka**2 < 0.02
    assert not product.deconfounded[0].any()
    assert product.cka[0].any()
    assert not second.input_like
    assert np.linalg.norm(product.deconfounded[1]) == pytest.approx(1, abs=1e-6)
    inputs = probe().part("probe").images.reshape(40, -1).astype(float)
    assert product.deconfounded[1] @ vector_of(inputs) == pytest.approx(0, abs=1e-5)


def states(product: LayerVectors) -> list[str]:
    return [layer.state for layer in product.layers]


def assert_not_indexed(product: LayerVectors, k: int) -> None:
    layer: Layer = product.layers[k]
    assert (layer.input_cka, layer.label_cka, layer.input_like) == (None, None, False)
    assert not product.cka[k].any()
    assert not product.deconfounded[k].any()
    assert not product.neighbours[k].any()


@pytest.mark.parametrize("bias", [0.0, 0.1, 12345.678])
def test_a_layer_whose_responses_never_change_is_constant(bias: float) -> None:
    model = small_cnn()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(bias)
    product = compute(model)
    assert states(product)[0] == "constant"
    assert_not_indexed(product, 0)
    assert product.layers[0].effective_dimension is None


def test_a_layer_that_only_one_image_moves_is_constant_with_a_leverage_of_one() -> None:
    dataset = probe()
    images = dataset.part("probe").images.copy()
    images[:] = 40
    images[7, :6] = 200
    alone = Dataset(dataset.description, {"probe": PartArrays(images, dataset.part("probe").labels)})
    product = compute(small_cnn(), alone)
    assert set(states(product)) == {"constant"}
    assert product.layers[0].max_leverage == pytest.approx(0.975, abs=0.01)
    assert product.layers[0].effective_dimension == pytest.approx(1, abs=0.01)
    assert_not_indexed(product, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_layer_that_is_not_finite_is_flagged_with_all_behind_it_and_none_before_it(value: float) -> None:
    model = small_cnn()
    with torch.no_grad():
        model[2].weight.fill_(value)
        model[3].weight.fill_(value)
    product = compute(model)
    assert states(product) == ["ok", "non_finite", "non_finite"]
    assert_not_indexed(product, 1)
    assert not product.grams[1].any()
    assert np.isfinite(product.grams).all()
    product.model_dump_json()


class Odd(nn.Module):
    """Has a linear layer on a table of its own, and one on patches that share the first axis with the images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.register_buffer("table", torch.rand(7, 3))
        self.position = nn.Linear(3, 9)
        self.patches = nn.Linear(16, 8)
        self.head = nn.Linear(72, 10)

    def forward(self, batch: Tensor) -> Tensor:
        n = len(batch)
        patches = batch.reshape(n, 3, 4, 3, 4).transpose(2, 3).reshape(n * 9, 16)
        bias = self.position(self.table).mean(0)
        return self.head((self.patches(patches) + bias[:8]).reshape(n, 72))


def test_a_layer_that_does_not_answer_image_by_image_is_unbatched() -> None:
    product = compute(Odd())
    assert [layer.name for layer in product.layers] == ["position", "patches", "head"]
    assert states(product) == ["unbatched", "ok", "ok"]
    assert [layer.shape for layer in product.layers] == [(7, 9), (9, 8), (10,)]
    assert_not_indexed(product, 0)
    images = probe().part("probe").images
    in_passes = responses(Odd().eval(), images, described(40), "cpu", budget=10_000)
    assert [one.gram is None for one in in_passes] == [True, False, False]


def test_rows_of_one_image_on_the_first_axis_are_one_response() -> None:
    model, dataset = Odd().eval(), probe()
    k = [layer.name for layer in compute(model).layers].index("patches")
    pixels = dataset.part("probe").images[..., 0].reshape(40, 3, 4, 3, 4).transpose(0, 1, 3, 2, 4).reshape(360, 16)
    with torch.no_grad():
        expected = model.double().patches(torch.tensor((pixels / 255 - 0.5) / 0.25)).reshape(40, 72).numpy()
    np.testing.assert_allclose(compute(model.float()).cka[k], vector_of(expected), atol=1e-5)


def test_a_model_without_weight_layers_has_an_empty_product() -> None:
    class Pixels(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return batch.flatten(1)[:, :10]

    product = compute(Pixels())
    assert (product.layers, product.cka.shape, product.grams.shape) == ((), (0, 780), (0, 820))


def test_a_model_that_does_not_fit_is_refused_as_for_predictions() -> None:
    with pytest.raises(Refused, match="expects 3 channels") as caught:
        compute(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 10)))
    assert caught.value.code == "input-mismatch"


def test_a_probe_set_of_three_images_is_refused() -> None:
    with pytest.raises(Refused, match="has 3 images") as caught:
        compute(small_cnn(), probe(3))
    assert caught.value.code == "probe-too-small"


def test_a_probe_set_too_large_for_the_index_is_refused() -> None:
    with pytest.raises(Refused, match="has 257 images") as caught:
        compute(small_cnn(), probe(257))
    assert caught.value.code == "probe-too-large"


def test_four_images_are_enough_for_a_product() -> None:
    assert compute(small_cnn(), probe(4)).cka.shape == (3, 6)
