"""The path of best matches: against every path that there is, on small matrices."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerscope.functions.query.similarity.alignment import Scores, floor, likeness, path, totals

LEAST = 0.06
MATRICES = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-1, 1))


def best_of_all(scores: Scores) -> float:
    """Return the largest sum over all pairings in order, each tried."""
    rows, columns = scores.shape
    sums = [0.0]
    for size in range(1, min(rows, columns) + 1):
        for chosen in combinations(range(rows), size):
            for others in combinations(range(columns), size):
                found = [scores[pair] for pair in zip(chosen, others, strict=True)]
                sums.append(sum(one for one in found if one > LEAST))
    return max(sums)


@given(MATRICES)
def test_no_other_path_in_order_adds_up_to_more(scores: Scores) -> None:
    found = path(scores, LEAST)
    assert sum(one.score for one in found) == pytest.approx(best_of_all(scores), abs=1e-9)
    assert totals(scores[None], LEAST)[0] == pytest.approx(best_of_all(scores), abs=1e-9)
    assert all(one.score == scores[one.a, one.b] > LEAST for one in found)
    assert all(one.a < other.a and one.b < other.b for one, other in pairwise(found))


@given(MATRICES)
def test_the_other_way_round_the_sum_is_the_same(scores: Scores) -> None:
    assert totals(scores[None], LEAST)[0] == pytest.approx(totals(scores.T[None], LEAST)[0], abs=1e-9)


def test_a_model_is_wholly_like_itself_and_a_longer_one_is_less() -> None:
    same = np.eye(4)
    assert [(one.a, one.b) for one in path(same, LEAST)] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert likeness(4.0, 4, 4) == 1
    longer = np.insert(same, 2, 0.0, axis=1)
    assert [(one.a, one.b) for one in path(longer, LEAST)] == [(0, 0), (1, 1), (2, 3), (3, 4)]
    assert likeness(totals(longer[None], LEAST)[0], 4, 5) == pytest.approx(8 / 9)


def test_the_same_layers_in_reverse_order_match_only_once() -> None:
    assert totals(np.eye(4)[:, ::-1][None], LEAST).tolist() == [1.0]


def test_chance_and_what_is_not_known_match_nothing() -> None:
    drawn = np.random.default_rng(0).standard_normal((2, 20, 4850))
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in drawn)
    scores = one @ other.T
    scores[3, 3] = np.nan
    assert path(scores, floor(100)) == []
    assert path(scores, 0.0) != []  # without the floor chance would add up
    assert likeness(0.0, 0, 3) == 0
