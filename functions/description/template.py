"""The template: a model in three sentences, in English and in Korean, from its facts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from layerscope.functions.analysis.wording.numerals import count, layer, layer_ko, percent, points, quoted, similarity
from layerscope.schemas.products.description import DescriptionFacts, Language


def english(facts: DescriptionFacts) -> str:
    """Describe a model in English."""
    return f"{_accuracy_en(facts)} {_answers_en(facts)} {_layers_en(facts)}."


def korean(facts: DescriptionFacts) -> str:
    """Describe a model in Korean; names come before a noun that takes the particle, whatever they end in."""
    return f"{_accuracy_ko(facts)} {_answers_ko(facts)} {_layers_ko(facts)}."


TEMPLATES: Final[Mapping[Language, Callable[[DescriptionFacts], str]]] = {"en": english, "ko": korean}


def _accuracy_en(facts: DescriptionFacts) -> str:
    share, low, high = (percent(one, "en") for one in (facts.accuracy, facts.accuracy_low, facts.accuracy_high))
    right = f"{facts.correct:,} of {count(facts.images, 'test image', 'test images')} right"
    text = f"This model gets {right}, an accuracy of {share} ({100 * facts.interval:g} % interval {low} to {high})"
    if facts.non_finite:
        return f"{text}; for {count(facts.non_finite, 'image', 'images')} its outputs are not finite, which counts as wrong."
    return f"{text}."


def _answers_en(facts: DescriptionFacts) -> str:
    if facts.answers == "meaningful" or facts.chance is None:
        return f"{_mistakes_en(facts)}; {_confidence_en(facts)}."
    chance = f"the same answers dealt out without looking at the images reach {percent(facts.chance, 'en')}"
    if facts.constant_class is not None:
        return f"It answers class {quoted(facts.constant_class)} whatever it is shown; {chance}."
    return f"That is no more than chance: {chance}."


def _mistakes_en(facts: DescriptionFacts) -> str:
    worst = facts.confusion
    if worst is not None:
        true, predicted = quoted(worst.true_name), quoted(worst.predicted_name)
        share = percent(worst.rate, "en")
        images = count(worst.images, "image", "images")
        return f"Most often it takes class {true} for class {predicted} ({images}, {share} of that class)"
    if facts.non_finite == facts.images:
        return "No output tells a class"
    return "It takes no class for another"


def _confidence_en(facts: DescriptionFacts) -> str:
    if facts.ece is None or facts.noise_floor_95 is None:
        return "how sure it is cannot be judged where outputs are not finite"
    error, floor = points(facts.ece, "en"), points(facts.noise_floor_95, "en")
    if facts.confidence == "calibrated":
        return (
            f"its confidence can be believed, being off by {error} on average where chance alone explains up to {floor}"
        )
    how = "surer than it should be" if facts.confidence == "overconfident" else "less sure than it could be"
    return f"it is {how}, its confidence being off by {error} on average where chance alone explains up to {floor}"


def _layers_en(facts: DescriptionFacts) -> str:
    unwell = f", such as {layer(facts.unwell_layer, facts.unwell_type)}" if facts.unwell_layer else ""
    dead = [
        (facts.layers_constant, "answers every image alike", "answer every image alike"),
        (facts.layers_non_finite, "gives values that are not finite", "give values that are not finite"),
    ]
    odd = [
        (facts.layers_unbatched, "mixes the images of a batch", "mix the images of a batch"),
        (facts.layers_input_like, "hardly changes the image it is given", "hardly change the image they are given"),
    ]
    first = " and ".join(count(number, one, many) for number, one, many in dead if number) + unwell
    parts = [first, *(count(number, one, many) for number, one, many in odd if number)]
    parts_in_words = ", ".join(part for part in parts if part) or "none is dead and none merely passes the image on"
    text = f"Of its {count(facts.layers, 'layer', 'layers')}, {parts_in_words}"
    if facts.clearest_layer is None or facts.clearest_label_cka is None:
        return text
    if facts.label_baseline is None:
        return text
    similar, base = similarity(facts.clearest_label_cka), similarity(facts.label_baseline)
    if facts.clearest_label_cka <= facts.label_baseline:
        return f"{text}; none separates the classes more than pixels or untrained layers do (similarity to the labels {base})"
    clearest = layer(facts.clearest_layer, facts.clearest_type)
    return (
        f"{text}; {clearest} separates the classes most clearly (similarity to the labels {similar}, where pixels and "
        f"untrained layers reach {base})"
    )


def _accuracy_ko(facts: DescriptionFacts) -> str:
    share, low, high = (percent(one, "ko") for one in (facts.accuracy, facts.accuracy_low, facts.accuracy_high))
    right = f"이 모델은 테스트 이미지 {facts.images:,}장 가운데 {facts.correct:,}장을 맞혀"
    text = f"{right} 정확도가 {share}입니다({100 * facts.interval:g}% 신뢰구간 {low}~{high})."
    if facts.non_finite:
        return f"{text} 출력이 유한하지 않은 {facts.non_finite:,}장은 틀린 것으로 셉니다."
    return text


def _answers_ko(facts: DescriptionFacts) -> str:
    if facts.answers == "meaningful" or facts.chance is None:
        return f"{_mistakes_ko(facts)}, {_confidence_ko(facts)}."
    chance = f"같은 답을 이미지에 아무렇게나 나누어 주어도 {percent(facts.chance, 'ko')}를 맞힙니다"
    if facts.constant_class is not None:
        return f"무엇을 보여도 {quoted(facts.constant_class)} 클래스라고 답하며, {chance}."
    return f"우연과 다르지 않습니다. {chance}."


def _mistakes_ko(facts: DescriptionFacts) -> str:
    worst = facts.confusion
    if worst is not None:
        true, predicted = quoted(worst.true_name), quoted(worst.predicted_name)
        share = percent(worst.rate, "ko")
        return f"가장 잦은 실수는 {true} 클래스를 {predicted} 클래스로 보는 것이고({worst.images:,}장, 그 클래스의 {share})"
    if facts.non_finite == facts.images:
        return "클래스를 말해 주는 출력이 없고"
    return "클래스를 서로 혼동하지 않고"


def _confidence_ko(facts: DescriptionFacts) -> str:
    if facts.ece is None or facts.noise_floor_95 is None:
        return "유한하지 않은 출력이 있어 확신도는 판단할 수 없습니다"
    error, floor = points(facts.ece, "ko"), points(facts.noise_floor_95, "ko")
    if facts.confidence == "calibrated":
        return f"확신도는 평균 {error} 어긋나지만 우연으로 설명되는 범위({floor} 이하) 안이어서 믿을 만합니다"
    how = "높은" if facts.confidence == "overconfident" else "낮은"
    return f"확신도는 실제보다 {how} 편으로 평균 {error} 어긋나 우연으로 설명되는 범위({floor} 이하)를 벗어납니다"


def _layers_ko(facts: DescriptionFacts) -> str:
    unwell = f"({layer_ko(facts.unwell_layer, facts.unwell_type)} 등)" if facts.unwell_layer else ""
    dead = [
        (facts.layers_constant, "모든 이미지에 똑같이 반응하는 층"),
        (facts.layers_non_finite, "유한하지 않은 값을 내는 층"),
    ]
    odd = [
        (facts.layers_unbatched, "배치의 이미지를 섞는 층"),
        (facts.layers_input_like, "입력 이미지를 거의 바꾸지 않는 층"),
    ]
    first = ", ".join(f"{what}이 {number:,}개" for number, what in dead if number) + unwell
    parts = [first, *(f"{what}이 {number:,}개" for number, what in odd if number)]
    parts_in_words = ", ".join(part for part in parts if part)
    text = f"전체 층 {facts.layers:,}개 가운데 {parts_in_words or '죽은 층이나 이미지를 그대로 넘기는 층은'}"
    if facts.clearest_layer is None or facts.clearest_label_cka is None:
        return text + ("입니다" if parts_in_words else " 없습니다")
    if facts.label_baseline is None:
        return text + ("입니다" if parts_in_words else " 없습니다")
    similar, base = similarity(facts.clearest_label_cka), similarity(facts.label_baseline)
    if facts.clearest_label_cka <= facts.label_baseline:
        clearest = f"픽셀이나 학습되지 않은 층(레이블과의 유사도 {base})보다 클래스를 잘 나누는 층은 없습니다"
    else:
        clearest = (
            f"클래스를 가장 뚜렷이 나누는 것은 {layer_ko(facts.clearest_layer, facts.clearest_type)}입니다"
            f"(레이블과의 유사도 {similar}, 픽셀과 학습되지 않은 층은 {base} 이하)"
        )
    return f"{text}{'이며' if parts_in_words else ' 없으며'}, {clearest}"
