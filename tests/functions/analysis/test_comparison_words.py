"""What a text says of a match: alike and separating the classes only beyond what untrained layers and pixels have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from layerscope.functions.analysis.wording.comparison import by_template, facts
from layerscope.functions.analysis.wording.match import ComparedLayer, ComparedModel, LayerMatch
from layerscope.schemas.products.description import DescriptionFacts, Language
from layerscope.schemas.products.layer_vectors import Layer


def match(label_cka: float = 0.51, **said: Any) -> LayerMatch:
    def model(name: str) -> ComparedModel:
        known = DescriptionFacts(
            images=100,
            correct=90,
            accuracy=0.9,
            accuracy_low=0.85,
            accuracy_high=0.95,
            non_finite=0,
            confidence="calibrated",
            confusion=None,
            layers=4,
            layers_constant=0,
            layers_non_finite=0,
            layers_unbatched=0,
            layers_input_like=0,
            unwell_layer=None,
            clearest_layer=None,
            clearest_label_cka=None,
        )
        layer = Layer(name="conv", call=0, type="Conv2d", shape=(8, 4, 4), label_cka=label_cka, input_cka=0.8)
        return ComparedModel(f"digits/{name}/1", known, ComparedLayer(layer, 2))

    given: dict[str, Any] = {"metric": "deconfounded", "score": 0.8, "z": 50.0, **said}
    return LayerMatch(a=model("a"), b=model("b"), **given)


def text(told: LayerMatch, language: Language) -> str:
    return by_template(told, language).text


def test_beyond_untrained_layers_two_layers_are_alike() -> None:
    told = match(percentile_untrained=0.975)
    assert "arrange the probe images alike (score 0.80, more than 97.5 % of the untrained layers" in text(told, "en")
    assert "비슷하게 배열합니다(점수 0.80" in text(told, "ko")
    assert facts(told)["alike"] is True


def test_why_is_said_only_where_the_labels_have_a_baseline() -> None:
    told = match(percentile_untrained=0.975, label_baselines=(0.95, 0.95))
    assert "untrained layers of that depth), by features that the classes do not explain alone." in text(told, "en")
    assert "비슷하게 배열하며(점수 0.80" in text(told, "ko") and "클래스만으로는" in text(told, "ko")
    unknown = match(percentile_untrained=0.975)
    assert "untrained layers of that depth). " in text(unknown, "en")
    assert "features" not in text(unknown, "en") and "클래스만으로는" not in text(unknown, "ko")


@pytest.mark.parametrize("score", [0.15, 0.22, 0.499])
def test_a_low_score_is_never_called_alike_however_few_untrained_layers_reach_it(score: float) -> None:
    told = match(percentile_untrained=1.0, score=score, untrained_bound=0.1, interval=(score - 0.02, score + 0.02))
    assert "have more in common than untrained layers of that depth, but not much" in text(told, "en")
    assert "alike" not in text(told, "en")
    assert "비슷하게" not in text(told, "ko") and "공통점이 많지만 크지는 않습니다" in text(told, "ko")
    assert facts(told)["alike"] is False


def test_nor_is_a_score_that_on_some_halves_of_the_images_untrained_layers_reach() -> None:
    shaky = match(percentile_untrained=0.99, score=0.6, untrained_bound=0.5, interval=(0.45, 0.7))
    assert "alike" not in text(shaky, "en") and facts(shaky)["alike"] is False
    firm = match(percentile_untrained=0.99, score=0.6, untrained_bound=0.5, interval=(0.55, 0.7))
    assert "arrange the probe images alike" in text(firm, "en") and facts(firm)["alike"] is True


@pytest.mark.parametrize("percentile", [0.949, 0.2, 0.0])
def test_within_them_they_are_not_whatever_z_says(percentile: float) -> None:
    told = match(percentile_untrained=percentile)
    assert "no more alike than untrained layers can be" in text(told, "en")
    assert "arrange the probe images alike" not in text(told, "en")
    assert "비슷하게" not in text(told, "ko")
    assert facts(told)["alike"] is False


def test_where_untrained_layers_are_too_few_neither_is_said() -> None:
    told = match()
    assert "too few untrained layers" in text(told, "en")
    assert "alike" not in text(told, "en")
    assert facts(told)["alike"] is None


@pytest.mark.parametrize(
    ("likeness", "baselines", "separate"),
    [
        (0.51, (0.48, 0.48), True),
        (0.48, (0.48, 0.48), False),
        (0.51, (0.55, 0.48), False),
        (0.9, (None, 0.48), False),
    ],
)
def test_layers_separate_the_classes_only_beyond_their_baselines(
    likeness: float, baselines: tuple[float | None, float | None], separate: bool
) -> None:
    told = match(likeness, percentile_untrained=1.0, label_baselines=baselines)
    assert ("both separate the classes" in text(told, "en")) is separate
    assert ("클래스를 잘 나눕니다" in text(told, "ko")) is separate


def test_the_images_are_the_reason_where_nothing_is_left_without_them() -> None:
    told = match(metric="cka", percentile_untrained=1.0, percentile_untrained_by_other_metric=0.4)
    assert "still resemble the images themselves (0.80 and 0.80)" in text(told, "en")
    left = match(metric="cka", percentile_untrained=1.0, percentile_untrained_by_other_metric=0.99)
    assert "still resemble" not in text(left, "en")


def test_a_share_is_never_rounded_up() -> None:
    assert "more than 99.9 % of" in text(match(percentile_untrained=0.9999), "en")


@pytest.mark.parametrize(
    ("change", "english", "korean"),
    [
        (
            {"answers": "at_chance", "chance": 0.1},
            "answers no better than by chance",
            "우연보다 나은 답을 하지 못하므로",
        ),
        (
            {"answers": "constant", "constant_class": "3"},
            "answers class ‘3’ whatever it is shown",
            "‘3’ 클래스라고 답합니다",
        ),
        ({"correct": 10, "images": 10}, "takes no class for another", "클래스를 서로 혼동하지 않습니다"),
        ({"correct": 9, "images": 10}, "has no confusion that is known", "알려진 혼동이 없습니다"),
    ],
)
def test_only_a_model_without_a_mistake_takes_no_class_for_another(
    change: dict[str, Any], english: str, korean: str
) -> None:
    given = match()
    changed = replace(given, a=replace(given.a, facts=given.a.facts.model_copy(update={"confusion": None, **change})))
    never = change.get("correct") == 10
    assert english in text(changed, "en") and ("takes no class for another" in text(changed, "en")) == never
    assert korean in text(changed, "ko") and ("서로 혼동하지 않습니다" in text(changed, "ko")) == never
