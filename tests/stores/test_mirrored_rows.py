"""Rows in memory answer as a search of all of them does, however they came there and whatever went."""

from __future__ import annotations

import numpy as np
import pytest

from layerscope.stores.index_rows import EVERY_ROW, LayerRow, RowFilter, RowMatch, Vector
from layerscope.stores.mirrored_rows import KEPT, MOST_KEPT, MirroredRows

DIMENSION = 40
FILTERS = (EVERY_ROW, RowFilter(min_accuracy=0.4), RowFilter(architecture="a", max_depth=0.6), RowFilter(dataset="d1"))


def near_rows(rng: np.random.Generator, who: str, count: int) -> list[LayerRow]:
    """Rows that crowd around few directions, some of them exactly equal."""
    vectors = np.eye(DIMENSION)[rng.integers(0, 3, count)] + rng.normal(0, 0.2, (count, DIMENSION))
    vectors[rng.random(count) < 0.1] = np.eye(DIMENSION)[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    accuracy = None if rng.random() < 0.2 else float(rng.random())
    made = str(rng.choice(["a", "b"]))
    return [
        LayerRow(f"{who}#{rng.integers(1 << 40)}", who, f"l{i}", i, accuracy, v, i / count, made)
        for i, v in enumerate(vectors.astype(np.float32))
    ]


def brute_force(stored: dict[str, list[LayerRow]], asked: Vector, k: int, excluding: str, where: RowFilter) -> list:
    found = []
    for who, group in stored.items():
        for row in group:
            accuracy = row.test_accuracy
            if (
                who != excluding
                and (where.min_accuracy is None or (accuracy is not None and accuracy >= where.min_accuracy))
                and (where.architecture is None or row.architecture == where.architecture)
                and (where.max_depth is None or row.depth <= where.max_depth)
                and (where.dataset is None or who.startswith(f"{where.dataset}/"))
            ):
                score = float(np.clip(asked.astype(np.float64) @ row.vector.astype(np.float64), -1, 1))
                found.append(RowMatch(who, row.layer, round(score, 6) + 0.0, accuracy, row.layer_index))
    return sorted(found, key=lambda one: (-one.score, one.subject, one.layer))[:k]


@pytest.mark.parametrize("seed", range(4))
def test_lists_stay_those_of_a_full_search_while_models_come_change_and_go(seed: int) -> None:
    rng, rows = np.random.default_rng(seed), MirroredRows(DIMENSION)
    stored: dict[str, list[LayerRow]] = {}
    for turn in range(60):
        who = f"d{rng.integers(3)}/net/{rng.integers(25)}"
        if who in stored and rng.random() < 0.4:
            del stored[who]
            rows.put(who, [])
        else:
            stored[who] = near_rows(rng, who, int(rng.integers(1, 40)))
            rows.put(who, stored[who], listed=bool(turn % 5))
        asker = str(rng.choice(sorted(stored))) if stored else None
        for where in FILTERS if asker else ():
            k = int(rng.choice([1, 10, KEPT, 300]))
            asked = np.stack([row.vector for row in stored[asker]][:3])
            for excluding in (asker, ""):
                got = rows.search(asked, k=k, excluding=excluding, where=where)
                assert got == [brute_force(stored, one, k, excluding, where) for one in asked]


def test_what_is_kept_is_looked_up_and_a_list_with_too_many_holes_is_made_again() -> None:
    rng, rows = np.random.default_rng(9), MirroredRows(DIMENSION)
    stored = {f"d/net/{i}": near_rows(rng, f"d/net/{i}", 30) for i in range(20)}
    for who, group in stored.items():
        rows.put(who, group)
    asked = stored["d/net/0"][0].vector[None]
    rows.search(asked, k=10, excluding="d/net/0", where=EVERY_ROW)
    assert rows.searched == 0
    rows.search(asked, k=10, excluding="d/net/0", where=RowFilter(dataset="other"))  # too few are kept: all are asked
    assert rows.searched == 1

    for who in list(stored)[4:]:
        rows.put(who, [])
        del stored[who]
    for _ in range(2):
        got = rows.search(asked, k=70, excluding="", where=EVERY_ROW)
        assert got == [brute_force(stored, asked[0], 70, "", EVERY_ROW)]
    assert rows.searched == 2


def test_more_equals_than_a_list_can_hold_are_still_the_first_by_name() -> None:
    rows, one = MirroredRows(DIMENSION), np.eye(DIMENSION, dtype=np.float32)[0]
    stored = {}
    for i in range(8):
        who = f"d/net/{i}"
        stored[who] = [LayerRow(f"{who}#{j}", who, f"l{j:03}", j, None, one) for j in range(MOST_KEPT // 4)]
        rows.put(who, stored[who])
    assert rows.search(one[None], k=60, excluding="d/net/0", where=EVERY_ROW) == [
        brute_force(stored, one, 60, "d/net/0", EVERY_ROW)
    ]


def test_a_model_that_is_evaluated_keeps_its_vectors_and_gets_its_accuracy() -> None:
    rng, rows = np.random.default_rng(1), MirroredRows(DIMENSION)
    group = near_rows(rng, "d/net/1", 5)
    rows.put("d/net/1", group)
    known = [
        LayerRow(r.uid, r.subject, r.layer, r.layer_index, 0.875, r.vector, r.depth, r.architecture) for r in group
    ]
    rows.put("d/net/1", known)
    (found,) = rows.search(group[0].vector[None], k=5, excluding="", where=RowFilter(min_accuracy=0.8))
    assert {hit.test_accuracy for hit in found} == {0.875} and len(found) == 5
    assert np.array_equal(rows.vector(group[3].uid), group[3].vector)  # type: ignore[arg-type]
    rows.put("d/net/1", [])
    assert rows.vector(group[3].uid) is None
