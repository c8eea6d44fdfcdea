"""What is said of two classes' likeness: where it must be said, and where it must not. Planted truth."""

from __future__ import annotations

import numpy as np

from layerscope.functions.query.similarity.class_judgement import FEWEST_NETWORKS, in_words, judge
from layerscope.functions.query.similarity.stored_classes import Classes

IMAGES, CLASSES = 60, 4


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def noise(seed: int, *shape: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((*shape, IMAGES)))


def model(name: str, vectors: np.ndarray, networks: int = 4, seed: int = 99) -> Classes:
    return Classes(name, vectors, noise(seed, networks, CLASSES))


def twins(share: float = 0.9) -> tuple[Classes, Classes]:
    """Return two models whose classes respond to the same, up to noise."""
    truth = noise(1, CLASSES)
    return tuple(  # type: ignore[return-value]
        model(f"a/{seed}/1", unit(share * truth + (1 - share) * noise(seed, CLASSES)), seed=seed) for seed in (2, 3)
    )


def test_classes_that_respond_to_the_same_are_said_to_recognise_it() -> None:
    first, second = twins()
    judged = judge(first, 2, second, 2, ())
    assert judged is not None
    assert judged.recognised and judged.mutual
    assert (judged.percentile_untrained, judged.untrained_networks) == (1.0, 8)
    assert in_words(judged, "three", "drei").startswith(
        "It recognises much the same under drei as this model under three"
    )


def test_a_class_no_nearer_than_those_of_untrained_networks_is_not() -> None:
    first, second = model("a/1/1", noise(4, CLASSES), seed=5), model("a/2/1", noise(6, CLASSES), seed=7)
    nearest = int((second.vectors @ first.vectors[0]).argmax())
    judged = judge(first, 0, second, nearest, ())
    assert judged is not None
    assert not judged.recognised
    assert "ecognises" not in in_words(judged, "a", "b")
    assert in_words(judged, "a", "b").startswith("No more alike than classes of untrained networks: ")


def test_one_untrained_network_that_is_as_near_is_enough_to_say_nothing() -> None:
    first, second = twins()
    planted = second.untrained.copy()
    planted[1, 3] = first.vectors[2]  # an untrained network with a class that is nearer still
    judged = judge(first, 2, Classes(second.content, second.vectors, planted), 2, ())
    assert judged is not None
    assert (judged.recognised, judged.percentile_untrained) == (False, 7 / 8)
    assert "1 of 8 untrained networks has a class that is as near" in in_words(judged, "a", "b")


def test_the_found_class_is_judged_from_its_own_side_as_well() -> None:
    first, second = twins()
    planted = first.untrained.copy()
    planted[0, 0] = second.vectors[2]  # near to the found class, and not as near to the asked one
    judged = judge(Classes(first.content, first.vectors, planted), 2, second, 2, ())
    assert judged is not None
    assert judged.percentile_untrained == 7 / 8


def test_a_class_that_another_one_is_nearer_to_is_not_said_to_be_recognised() -> None:
    first, second = twins()
    vectors = second.vectors.copy()
    vectors[0] = unit(0.6 * first.vectors[2] + 0.8 * noise(8, 1)[0])
    judged = judge(first, 2, Classes(second.content, vectors, second.untrained), 0, ())
    assert judged is not None
    assert (judged.mutual, judged.recognised) == (False, False)
    assert "not each other's nearest" in in_words(judged, "a", "b")


def test_a_copy_adds_no_untrained_networks_of_its_own() -> None:
    first, second = twins()
    judged = judge(first, 2, Classes(first.content, second.vectors, first.untrained), 2, (first, second))
    assert judged is not None
    assert judged.untrained_networks == 8


def test_too_few_untrained_networks_judge_nothing() -> None:
    first, second = twins()
    few = [Classes(one.content, one.vectors, one.untrained[:3]) for one in (first, second)]
    assert judge(few[0], 2, few[1], 2, ()) is None
    assert f"fewer than {FEWEST_NETWORKS}" in in_words(None, "a", "b")
    more = model("a/4/1", noise(9, CLASSES), networks=2)
    assert judge(few[0], 2, few[1], 2, (more,)) is not None
    nothing = Classes("a/4/1", more.vectors, np.zeros_like(more.untrained))  # networks without comparable classes
    assert judge(few[0], 2, few[1], 2, (nothing,)) is None


def test_an_untrained_model_exceeds_all_untrained_networks_no_more_often_than_by_chance() -> None:
    found = []
    for seed in range(0, 4_000, 10):
        asked, other, third = (model(f"a/{at}/1", noise(seed + at, CLASSES), seed=seed + at + 5) for at in range(3))
        nearest = int((other.vectors @ asked.vectors[0]).argmax())
        judged = judge(asked, 0, other, nearest, (third,))
        assert judged is not None
        found.append(judged)
    shares = np.array([one.percentile_untrained for one in found])
    assert 1 / 3 - 0.05 < shares.mean() < 1 / 2  # the smaller of two uniform ones that go together
    beyond, said = (shares == 1.0).mean(), np.mean([one.recognised for one in found])
    assert said <= beyond < 1 / 13 + 0.02


def test_a_class_is_ranked_among_the_best_classes_of_other_stored_models() -> None:
    first, second = twins()
    others = [model(f"o/{seed}/1", noise(100 + seed, CLASSES), seed=seed) for seed in range(20, 31)]
    judged = judge(first, 2, second, 2, [first, second, *others, others[0]])  # itself, the hit and a copy do not count
    assert judged is not None and (judged.percentile_stored, judged.stored_models) == (1.0, 11)
    nearest = int((second.vectors @ first.vectors[2]).argsort()[-2])
    worse = judge(first, 2, second, nearest, others)
    score = float(first.vectors[2].astype(np.float64) @ second.vectors[nearest])
    bests = np.array([(one.vectors @ first.vectors[2]).max() for one in others])
    assert worse is not None and worse.percentile_stored == np.mean(bests < score) < 1
    few = judge(first, 2, second, 2, others[:9])
    assert few is not None and (few.percentile_stored, few.stored_models) == (None, 9)
