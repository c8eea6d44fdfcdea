"""Where a role is played: each condition of it alone must be able to say that it is not, and all together that it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layerscope.functions.query.similarity.depths import roles
from layerscope.functions.query.similarity.judgement import Best, Found, best_layer
from layerscope.schemas.depths import RoleAnswer
from layerscope.schemas.queries import Hit, Judgement, SimilarAnswer
from tests.functions.test_query_judgement import N, networks, some, vectors

FIRM = Best(percentile=20 / 21, networks=20, bound=0.4)


def judged(**said: Any) -> Judgement:
    given: dict[str, Any] = {
        "percentile_untrained": 1.0,
        "untrained_layers": 20,
        "percentile_stored": None,
        "stored_layers": 0,
        "interval": (0.55, 0.65),
        "percentile_untrained_by_other_metric": 0.9,
        "metrics_disagree": False,
        "notes": (),
    }
    return Judgement(**given | said)


def answer(
    judgement: Judgement | None, best: Best | None, score: float = 0.6, theirs: float | None = 0.5
) -> RoleAnswer:
    hit = Hit(dataset="d", model="b", version="1", layer="x", score=score, z=1.0, judgement=judgement)
    given = SimilarAnswer(layer="y", metric="deconfounded", hits=(hit,))
    return roles(given, 0.5, lambda _: theirs, lambda _: best)


def played(*given: Any, **said: Any) -> str:
    return answer(*given, **said).roles[0].played


@pytest.mark.parametrize(("theirs", "place"), [(0.3, "earlier"), (0.4, "as_deep"), (0.6, "as_deep"), (0.7, "later")])
def test_a_role_is_played_where_all_conditions_hold(theirs: float, place: str) -> None:
    assert played(judged(), FIRM, theirs=theirs) == place


def test_each_condition_alone_is_enough_to_say_that_it_is_not() -> None:
    assert played(judged(), Best(0.94, 20, 0.4)) == "absent"
    assert played(judged(), FIRM, score=0.49) == "absent"
    assert played(judged(interval=(0.4, 0.65)), FIRM) == "absent"
    assert played(judged(metrics_disagree=True), FIRM) == "absent"


def test_what_is_not_known_is_not_judged() -> None:
    assert played(None, FIRM) == played(judged(), None) == played(judged(), FIRM, theirs=None) == "not_judged"
    assert played(judged(interval=None), FIRM) == "not_judged"
    few = answer(judged(), Best(None, 18, None))
    assert (few.roles[0].played, few.roles[0].untrained_networks) == ("not_judged", 18)
    assert (
        few.reason
        == "There are too few untrained networks like these models yet to tell whether a likeness means a role."
    )


def test_the_sentence_counts_them() -> None:
    assert answer(judged(), FIRM).reason == (
        "In 1 of 1 models a layer plays its role: earlier in 0, about as deep in 1, later in 0. In 0 no layer is much like it, "
        "and clearly more than the best of untrained networks."
    )


def test_the_best_of_a_model_is_ranked_among_the_best_of_each_network() -> None:
    mine, rows, drawn = vectors(1, 1), vectors(3, 2), vectors(3 * 25, 4)
    model = some("d/b/1", rows, [0.0, 0.5, 1.0])
    asked = Found(some("d/a/1", mine, [0.5]), 0)
    found = best_layer(asked, model, "cka", [networks(drawn, layers=3, places=(0, 1, 2))])
    bests = (drawn.reshape(25, 3, -1) @ mine[0]).max(axis=1)
    assert found.networks == 25
    assert found.percentile == pytest.approx(np.sum(bests < (rows @ mine[0]).max()) / 26, abs=1e-9)
    assert found.bound == pytest.approx(np.quantile(bests, 0.95), abs=1e-6)
    assert best_layer(asked, model, "cka", []) == Best(None, 0, None)


def test_a_model_that_is_one_more_draw_is_beyond_the_others_in_one_case_of_twenty() -> None:
    asked, beyond = Found(some("d/a/1", vectors(1, 1), [0.5]), 0), 0
    random = np.random.default_rng(0)
    for _ in range(200):
        drawn = random.standard_normal((21, 4, N * (N - 1) // 2))
        model = some("d/b/1", drawn[0], [0.0, 1 / 3, 2 / 3, 1.0])
        others = networks(drawn[1:].reshape(80, -1), layers=4, places=(0, 1, 2, 3))
        found = best_layer(asked, model, "cka", [others])
        beyond += found.percentile is not None and found.percentile >= 0.95
    assert 0 < beyond / 200 <= 0.05 + 2.33 * (0.05 * 0.95 / 200) ** 0.5
