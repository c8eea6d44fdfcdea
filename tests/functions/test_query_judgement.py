"""Judging a similarity: the maths against references made in another way, and rules where they hold and where not."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest

from layerscope.functions.analysis.representation.vectors import classic, neighbours, upper_triangle
from layerscope.functions.query.similarity import half_samples, intervals
from layerscope.functions.query.similarity.alignment import floor, likeness, path
from layerscope.functions.query.similarity.judgement import Found, judge, label_baseline
from layerscope.functions.query.similarity.reference_population import Layers, Population, representatives
from layerscope.schemas.products.layer_vectors import Layer, Metric
from layerscope.schemas.queries import Judgement
from layerscope.stores.index_rows import CatalogueRow
from tests.functions.test_layer_vectors import debiased_cka, features, vector_of

N = 40


def some(
    subject: str, rows: np.ndarray, depths: list[float], inputs: np.ndarray | None = None, **said: object
) -> Layers:
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    lines = tuple(
        Layer(name=str(at), call=0, type="Conv2d", shape=(1,)).model_copy(update=said) for at in range(len(rows))
    )
    pixels = None if inputs is None else 0.3
    return Layers(subject, N, lines, np.array(depths), dict.fromkeys(get_args(Metric), unit), inputs, pixels)


def networks(rows: np.ndarray, layers: int = 1, places: tuple[int, ...] = (0,), **said: Any) -> Layers:
    """Return untrained networks of so many layers, of which those at `places` are kept, one after the other."""
    number = len(rows) // len(places)
    given = some("d/y/1", rows, [at / max(layers - 1, 1) for at in places] * number, INPUTS, **said)
    drawn = np.repeat(np.arange(number), len(places))
    return dataclasses.replace(given, networks=drawn, positions=np.array(places * number))


def vectors(count: int, seed: int) -> np.ndarray:
    return np.stack([vector_of(features(N, 30, 100 * seed + at)) for at in range(count)])


INPUTS = vectors(1, 99)[0].astype(np.float32)


def verdict(hit: np.ndarray, untrained: np.ndarray, **said: Any) -> Judgement:
    mine = vectors(1, 1)
    population = Population(
        stored=(some("d/x/1", vectors(25, 3), [0.5] * 25),),
        untrained=(networks(untrained),),
    )
    asked, found = some("d/a/1", mine, [0.5]), some("d/b/1", hit[None], [0.5], **said)
    return judge(Found(asked, 0), Found(found, 0), "cka", population)


def gram_of(z: np.ndarray) -> np.ndarray:
    centred = z - z.mean(axis=0)
    return np.asarray(centred @ centred.T)


def rows(z: np.ndarray) -> np.ndarray:
    return half_samples.by_half(vector_of(z).astype(np.float32), N)


def test_an_interval_is_that_of_halves_computed_from_their_own_gram_matrices() -> None:
    x, y = features(N, 30, 1), features(N, 30, 1) + 2 * features(N, 30, 2)
    found = half_samples.interval((rows(x) * rows(y)).sum(axis=1))
    expected = [debiased_cka(x[half], y[half]) for half in half_samples.halves(N)]
    assert found == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=1e-4)


def test_a_deconfounded_interval_is_that_of_partial_correlations_of_halves() -> None:
    x, y, z = features(N, 30, 1), features(N, 30, 1) + 2 * features(N, 30, 2), features(N, 30, 1) + features(N, 30, 3)
    first, second = (half_samples.without(rows(one), rows(z)) for one in (x, y))
    expected = []
    for half in half_samples.halves(N):
        xy, xz, yz = (debiased_cka(a[half], b[half]) for a, b in ((x, y), (x, z), (y, z)))
        expected.append((xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5)
    assert (first * second).sum(axis=1) == pytest.approx(np.array(expected), abs=1e-4)


def test_neighbours_of_a_half_are_those_of_its_own_gram_half_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gram_of(features(N, 30, 1))
    (scaled,) = classic(upper_triangle(x)[None], N)
    weights = np.where(np.equal(*np.triu_indices(N)), 1.0, np.sqrt(2.0))
    found = half_samples.neighbours_by_half((scaled / weights).astype(np.float32), N)
    monkeypatch.setattr("layerscope.functions.analysis.representation.vectors.NEAREST", 5)
    for half, row in zip(half_samples.halves(N), found, strict=True):
        expected = neighbours(x[np.ix_(half, half)])
        assert expected is not None and row == pytest.approx(expected, abs=1e-6)


def test_the_classic_score_of_a_half_is_that_of_its_own_gram() -> None:
    grams = [gram_of(features(N, 30, seed)) for seed in (1, 2)]
    found = [half_samples.classic_by_half(row, N) for row in classic(np.stack([upper_triangle(x) for x in grams]), N)]
    centring = np.eye(N // 2) - 2 / N
    for at, half in enumerate(half_samples.halves(N)):
        x, y = (centring @ one[np.ix_(half, half)] @ centring for one in grams)
        expected = np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y)  # biased linear CKA, Kornblith et al. 2019
        assert found[0][at] @ found[1][at] == pytest.approx(expected, abs=1e-5)


def test_the_interval_of_a_likeness_is_that_of_the_paths_on_halves() -> None:
    models = [
        dataclasses.replace(some(f"d/{seed}/1", vectors(count, seed), [0.0] * count), images=N)
        for seed, count in ((1, 3), (2, 4))
    ]
    mixed = vectors(4, 2) + np.concatenate([vectors(3, 1), vectors(1, 9)])
    models[1] = some("d/2/1", mixed, [0.0] * 4)
    made = intervals.halves("cka", N, ())
    assert made is not None
    found = intervals.of_likeness(made, *(intervals.stacked(made, one) for one in models))
    layers = [[half_samples.by_half(row, N) for row in one.vectors("cka")] for one in models]
    expected = [
        likeness(path_total, 3, 4)
        for at in range(half_samples.DRAWS)
        for path_total in [
            sum(
                one.score
                for one in path(np.array([[a[at] @ b[at] for b in layers[1]] for a in layers[0]]), floor(N // 2))
            )
        ]
    ]
    assert found == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=1e-4)


def test_without_enough_images_or_what_they_have_in_common_there_is_no_interval() -> None:
    given = networks(vectors(3, 4))
    assert intervals.halves("cka", 15, [given]) is None
    assert intervals.halves("deconfounded", N, []) is None
    assert intervals.halves("neighbours", N, [given]) is None  # their Gram is not known
    for metric in get_args(Metric):
        assert (
            intervals.halves(metric, N, [dataclasses.replace(given, input_gram=upper_triangle(np.eye(N)))]) is not None
        )


def test_halves_without_a_pattern_have_no_interval() -> None:
    nothing = half_samples.by_half(np.zeros(N * (N - 1) // 2, np.float32), N)
    assert half_samples.interval((nothing * nothing).sum(axis=1)) is None


def test_a_percentile_is_the_share_of_lower_scores_the_hit_s_own_being_one_of_them() -> None:
    mine, hit, untrained = vectors(1, 1)[0], vectors(1, 2)[0], vectors(30, 4)
    found = verdict(hit, untrained)
    assert found.percentile_untrained == pytest.approx(np.sum(untrained @ mine < hit @ mine) / 31, abs=1e-9)
    assert (found.untrained_layers, found.stored_layers) == (30, 25)
    assert found.percentile_stored == pytest.approx(np.mean(vectors(25, 3) @ mine < hit @ mine), abs=1e-9)
    assert found.score_of_untrained == pytest.approx(np.quantile(untrained @ mine, 0.95), abs=1e-4)


def test_nineteen_untrained_networks_are_enough_to_be_beyond_them_and_fewer_judge_nothing() -> None:
    mine = vectors(1, 1)[0]
    assert verdict(mine, vectors(19, 4)).percentile_untrained == 0.95
    few = verdict(mine, vectors(18, 4))
    assert (few.percentile_untrained, few.untrained_layers, few.metrics_disagree) == (None, 18, False)
    assert few.notes == (
        "Not judged: 18 layers of untrained networks can stand beside the found one, and 19 are needed to tell it from them.",
    )


def test_only_untrained_networks_of_the_hit_s_own_architecture_stand_beside_it() -> None:
    mine, untrained = vectors(1, 1), vectors(60, 4)
    of_kind, others = networks(untrained[:25]), networks(untrained[25:], type="Linear")
    deeper = networks(untrained, layers=3, places=(0, 1, 2))
    asked, hit = some("d/a/1", mine, [0.5]), some("d/b/1", vectors(1, 2), [0.5])
    found = judge(Found(asked, 0), Found(hit, 0), "cka", Population((), (others, of_kind, deeper)))
    scores = untrained[:25] @ mine[0]
    assert found.untrained_layers == 25
    assert found.percentile_untrained == pytest.approx(np.sum(scores < vectors(1, 2)[0] @ mine[0]) / 26, abs=1e-9)
    none = judge(Found(asked, 0), Found(hit, 0), "cka", Population((), (others, deeper)))
    assert (none.percentile_untrained, none.untrained_layers) == (None, 0)
    assert none.notes == ("Not judged: untrained networks of the found model's architecture are not there (yet).",)


@pytest.mark.parametrize(("position", "kept"), [(8, [2]), (9, [2]), (10, [2, 3])])
def test_the_same_layer_of_each_network_stands_beside_a_layer_or_of_a_deep_one_those_near_it(
    position: int, kept: list[int]
) -> None:
    mine, drawn = vectors(1, 1), vectors(6 * 20, 4)
    asked, deep = some("d/a/1", mine, [0.5]), some("d/b/1", vectors(21, 2), list(np.arange(21) / 20))
    population = Population((), (networks(drawn, layers=21, places=(0, 4, 8, 12, 16, 20)),))
    found = judge(Found(asked, 0), Found(deep, position), "cka", population)
    beside = drawn.reshape(20, 6, -1)[:, kept].reshape(20 * len(kept), -1)
    assert found.untrained_layers == len(beside)
    assert found.score_of_untrained == pytest.approx(np.quantile(beside @ mine[0], 0.95), abs=1e-4)


def test_an_untrained_layer_without_a_vector_is_not_among_them() -> None:
    untrained = vectors(30, 4)
    given = networks(untrained)
    given.vectors("cka")[:5] = 0
    asked, hit = some("d/a/1", vectors(1, 1), [0.5]), some("d/b/1", vectors(1, 2), [0.5])
    found = judge(Found(asked, 0), Found(hit, 0), "cka", Population((), (given,)))
    assert found.untrained_layers == 25


def test_the_asked_model_and_the_hit_itself_are_not_among_what_it_is_ranked_in() -> None:
    mine, others = vectors(1, 1), vectors(21, 3)
    asked, other = some("d/a/1", mine, [0.5]), some("d/b/1", others, [0.5] * 21)
    found = judge(Found(asked, 0), Found(other, 4), "cka", Population((asked, other), ()))
    assert found.stored_layers == 20
    expected = np.delete(others @ mine[0], 4) < others[4] @ mine[0]
    assert found.percentile_stored == pytest.approx(expected.mean(), abs=1e-9)


def test_notes_are_given_where_they_hold_and_not_where_they_do_not() -> None:
    mine = vectors(1, 1)[0]
    assert verdict(mine, vectors(30, 4)).notes == ()
    (ordinary,) = verdict(vectors(1, 2)[0], vectors(30, 4)).notes
    share = np.mean(vectors(30, 4) @ mine > vectors(1, 2)[0] @ mine)
    assert ordinary == (
        f"Not beyond untrained layers: {round(100 * share)} % of those like it are as much like the asked layer."
    )
    assert 0 < share < 1
    (passed,) = verdict(mine, vectors(30, 4), input_like=True).notes
    assert "passes the images on" in passed and "found layer" in passed
    (hung,) = verdict(mine, vectors(30, 4), max_leverage=0.31).notes
    assert "31 %" in hung
    assert verdict(mine, vectors(30, 4), max_leverage=0.2).notes == ()


def test_metrics_disagree_where_one_is_beyond_untrained_layers_and_the_other_is_not() -> None:
    mine, untrained, ordinary = vectors(1, 1), vectors(30, 4), vectors(30, 4)
    median = ordinary[np.argsort(ordinary @ mine[0])[15]][None]
    population = Population((), (networks(untrained),))
    asked, alike, plain = (some(f"d/{name}/1", rows, [0.5]) for name, rows in (("a", mine), ("b", mine), ("c", median)))
    mixed = Layers("d/b/1", N, alike.layers, alike.depths, {**alike.by_metric, "deconfounded": plain.vectors("cka")})
    found = judge(Found(asked, 0), Found(mixed, 0), "cka", population)
    assert found.metrics_disagree
    assert any("disagree" in note for note in found.notes)
    same = judge(Found(asked, 0), Found(alike, 0), "cka", population)
    assert not same.metrics_disagree
    assert same.notes == ()


def test_what_separates_the_classes_has_to_exceed_pixels_and_untrained_layers() -> None:
    low = some("d/y/1", vectors(30, 4), [0.5] * 30, INPUTS, label_cka=0.1)
    high = some("d/y/1", vectors(30, 4), [0.5] * 30, INPUTS, label_cka=0.6)
    assert label_baseline(0.5, Population((), (low,))) == pytest.approx(0.3)  # the pixels'
    assert label_baseline(0.5, Population((), (high,))) == pytest.approx(0.6)
    assert label_baseline(0.5, Population((), ())) is None


def test_who_stands_for_a_dataset_is_decided_by_contents_and_of_equal_ones_one() -> None:
    def line(subject: str, content: str | None) -> CatalogueRow:
        return CatalogueRow(subject, "complete", "", content, None, None, "", 0, "")

    lines = [line("d/a/1", "ff"), line("d/b/1", "aa"), line("d/c/1", "aa"), line("d/e/1", None)]
    assert [one.subject for one in representatives(lines)] == ["d/b/1", "d/a/1"]
    assert representatives(lines[::-1]) == representatives(lines)
    many = [line(f"d/m/{at}", f"{at:03x}") for at in range(300)]
    assert representatives(many) == representatives(many[::-1]) == many[: len(representatives(many))]
