"""The rank of a model among untrained networks of its architecture: planted draws, and one model that is no draw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from layerscope.functions.query.similarity.alignment import likeness, totals
from layerscope.functions.query.similarity.model_percentile import among_stored, among_untrained, unjudged
from layerscope.functions.query.similarity.reference_population import Layers
from tests.functions.test_query_judgement import networks, some

LAYERS, WIDTH, KEPT = 54, 300, (0, 11, 21, 32, 42, 53)


def draws(seed: int, count: int) -> np.ndarray:
    """Return the layers of networks (count, LAYERS, WIDTH): all are alike, and those of one network more."""
    random = np.random.default_rng(seed)
    shared = 1 + random.standard_normal((count, 1, WIDTH))
    return shared + random.standard_normal((count, LAYERS, WIDTH))


def model(rows: np.ndarray) -> Layers:
    return some("d/b/1", rows, list(np.arange(LAYERS) / (LAYERS - 1)))


def untrained(seed: int, count: int) -> Layers:
    rows = draws(seed, count)[:, list(KEPT)].reshape(-1, WIDTH)
    return networks(rows, layers=LAYERS, places=KEPT)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_a_deep_model_that_is_a_draw_itself_has_any_rank_as_likely() -> None:
    asked = unit(draws(0, 1)[0])
    ranks = []
    for seed in range(1, 61):
        rank, number = among_untrained(asked, model(draws(1_000 + seed, 1)[0]), "cka", [untrained(seed, 20)], least=0.0)
        assert number == 20 and rank is not None
        ranks.append(rank)
    ordered = np.sort(ranks)
    steps = np.arange(1, 61) / 60
    assert max(np.abs(ordered - steps).max(), np.abs(ordered - steps + 1 / 60).max()) < 1.63 / 60**0.5
    assert np.mean(ordered >= 0.95) <= 0.05 + 2.33 * (0.05 * 0.95 / 60) ** 0.5


def test_a_deep_model_like_the_asked_one_is_beyond_all_of_them_though_six_layers_of_each_are_kept() -> None:
    asked = unit(draws(0, 1)[0])
    twin = asked + 0.05 * draws(5, 1)[0]
    assert among_untrained(asked, model(twin), "cka", [untrained(2, 20)], least=0.0) == (20 / 21, 20)


def test_the_same_layers_of_the_model_and_of_the_networks_are_compared() -> None:
    asked, rows, drawn = unit(draws(0, 1)[0]), draws(3, 1)[0], untrained(2, 20)
    vectors = drawn.vectors("cka").astype(np.float64).reshape(20, len(KEPT), WIDTH)

    def score(layers: np.ndarray) -> float:
        return likeness(float(totals((asked @ layers.T)[None], 0.0)[0]), LAYERS, len(layers))

    own = score(unit(rows[list(KEPT)]))
    expected = np.mean([score(one) < own for one in vectors]) * 20 / 21
    rank, _ = among_untrained(asked, model(rows), "cka", [drawn], least=0.0)
    assert rank == pytest.approx(expected, abs=1e-9)


def test_too_few_networks_or_those_of_another_depth_judge_nothing() -> None:
    asked, found = unit(draws(0, 1)[0]), model(draws(3, 1)[0])
    assert among_untrained(asked, found, "cka", [untrained(2, 18)], least=0.0) == (None, 18)
    other = dataclasses.replace(untrained(2, 20), positions=np.array((0, 10, 20, 30, 40, 50) * 20))
    assert among_untrained(asked, found, "cka", [other], least=0.0) == (None, 0)
    assert unjudged(0) == "Untrained networks of its architecture are not there (yet)."
    assert unjudged(2).startswith("There are 2 untrained networks of its architecture, and 19 are needed")
    assert unjudged(1).startswith("There is one untrained network of its architecture")


def test_a_rank_among_stored_models_takes_ten_of_them() -> None:
    others = [at / 10 for at in range(10)]
    assert among_stored(0.55, others) == 0.6
    assert among_stored(0.5, others) == 0.55
    assert among_stored(0.55, others[:9]) is None
