"""The template for a hit: two models and two layers in a few sentences, in English and in Korean. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

from layerscope.functions.analysis.paired import told
from layerscope.functions.analysis.wording.facts import BEYOND, harmless
from layerscope.functions.analysis.wording.match import ComparedModel, LayerMatch
from layerscope.functions.analysis.wording.numerals import count, layer, layer_ko, percent, quoted, similarity
from layerscope.schemas.products.description import DescriptionFacts, Language

Advice = Literal["unwell", "layer", "capacity", "confusion", "calibrate", "look"]

Verdict = Literal["unknown", "untrained", "loose", "input", "labels", "other", "unexplained"]
Section = Literal["structure", "performance", "similarity", "advice"]

BEHIND: Final = 0.1
MOST_ADVICE: Final = 2
MOST_TYPES: Final = 3
NO_LAYERS: Final = ("Parameter", "function")  # what a summary lists besides layers


def english(match: LayerMatch) -> Mapping[Section, str]:
    """Tell of a match in English, section by section."""
    return {
        "performance": f"{_difference_en(match)} {_mistakes_en(match)}",
        "structure": _structure_en(match),
        "similarity": _match_en(match),
        "advice": _advice_en(match),
    }


def korean(match: LayerMatch) -> Mapping[Section, str]:
    """Tell of a match in Korean; names come before a noun that takes the particle, whatever they end in."""
    return {
        "performance": f"{_difference_ko(match)} {_mistakes_ko(match)}",
        "structure": _structure_ko(match),
        "similarity": _match_ko(match),
        "advice": _advice_ko(match),
    }


TEMPLATES: Final[Mapping[Language, Callable[[LayerMatch], Mapping[Section, str]]]] = {"en": english, "ko": korean}


def advice(weaker: ComparedModel, other: ComparedModel) -> list[Advice]:
    """Return what the weaker one's owner could try, the most telling first; on other data the other tells nothing."""
    mine, theirs = weaker.compared.layer.label_cka, other.compared.layer.label_cka
    one_task = weaker.dataset == other.dataset
    smaller = bool(weaker.parameters and other.parameters and 2 * weaker.parameters <= other.parameters)
    reasons: dict[Advice, bool] = {
        "unwell": weaker.facts.unwell_layer is not None,
        "layer": one_task and mine is not None and theirs is not None and theirs - mine >= BEHIND,
        "capacity": one_task and smaller,
        "calibrate": weaker.facts.confidence in ("overconfident", "underconfident"),
        "confusion": weaker.facts.confusion is not None,
        "look": True,
    }
    return [one for one, holds in reasons.items() if holds][:MOST_ADVICE]


def most_common(model: ComparedModel) -> list[tuple[str, int]]:
    """Return the types of layers that a network has most of, with their numbers; ties in the order of the network."""
    return Counter(harmless(row.type) for row in model.network if row.type not in NO_LAYERS).most_common(MOST_TYPES)


def _weaker_first(match: LayerMatch) -> tuple[ComparedModel, ComparedModel]:
    a, b = match.a, match.b
    return (b, a) if match.same_test_images and b.facts.accuracy < a.facts.accuracy else (a, b)


def _verdict(match: LayerMatch) -> Verdict:
    """Return whether two layers are alike, and what explains it best.

    Alike is only what lies beyond untrained layers, firmly and by much (`LayerMatch.alike`). The images are the reason of
    it where it no longer does once they are taken out; the labels, where both layers exceed their baselines. Over images
    without labels nothing else is known of why.
    """
    if match.beyond_untrained is None:
        return "unknown"
    if not match.beyond_untrained:
        return "untrained"
    if not match.alike:
        return "loose"
    other, layers = match.percentile_untrained_by_other_metric, (match.a.compared.layer, match.b.compared.layer)
    passed_on = any(one.input_like for one in layers) or (other is not None and other < BEYOND)
    if match.metric == "cka" and passed_on:
        return "input"
    if None in match.label_baselines:
        return "unexplained"
    return "labels" if match.both_separate_classes else "other"


def _below(match: LayerMatch, language: Language) -> str:
    """Return the share of untrained layers that match less, never rounded up to all."""
    share = match.percentile_untrained or 0.0
    return percent(math.floor(1000 * share) / 1000, language)


def _pair(first: float | None, second: float | None, joint: str) -> str:
    return joint.join(similarity(one) for one in (first, second) if one is not None)


def _difference_en(match: LayerMatch) -> str:
    of = "" if match.same_test_images else " of its dataset"
    sentence = " and ".join(
        f"{quoted(one.name)} gets {percent(one.facts.accuracy, 'en')} of the test images{of} right "
        f"({100 * one.facts.interval:g} % interval {percent(one.facts.accuracy_low, 'en')} to "
        f"{percent(one.facts.accuracy_high, 'en')})"
        for one in (match.a, match.b)
    )
    if not match.same_test_images:
        return f"{sentence}; these are different images, so that says nothing of which is better."
    if match.alone is None:
        return (
            f"{sentence}; their answers are not there to be held against each other, so neither is shown to be better."
        )
    alone = match.alone
    sentence = (
        f"{sentence}. Of the same {count(alone.images, 'image', 'images')}, {alone.only_a:,} only {quoted(match.a.name)} has "
        f"right, and {alone.only_b:,} only {quoted(match.b.name)}"
    )
    if alone.better is None:
        return f"{sentence}: within chance ({told(alone.p_value)}), so neither is shown to be better."
    better = match.a if alone.better == "a" else match.b
    return f"{sentence}: {quoted(better.name)} is better, beyond chance ({told(alone.p_value)})."


def _mistakes_en(match: LayerMatch) -> str:
    sentence = []
    for one in (match.a, match.b):
        sentence.append(f"{quoted(one.name)} {_mistake_en(one.facts)}")
    return f"{', '.join(sentence)}."


def _mistake_en(facts: DescriptionFacts) -> str:
    if facts.answers == "constant" and facts.constant_class is not None:
        return f"answers class {quoted(facts.constant_class)} whatever it is shown"
    if facts.answers != "meaningful":
        return "answers no better than by chance, so no confusion of its means anything"
    if facts.confusion is not None:
        worst = facts.confusion
        return f"most often takes class {quoted(worst.true_name)} for class {quoted(worst.predicted_name)}"
    return "takes no class for another" if facts.correct == facts.images else "has no confusion that is known"


def _structure_en(match: LayerMatch) -> str:
    sentence = []
    for one in (match.a, match.b):
        parts = [f"{number:,} {quoted(type_)}" for type_, number in most_common(one)]
        size = [f"{one.parameters:,} parameters"] if one.parameters is not None else []
        sentence.append(
            f"{quoted(one.name)} has {', '.join(size + parts) or count(one.facts.layers, 'layer', 'layers')}"
        )
    return f"{'; '.join(sentence)}."


def _match_en(match: LayerMatch) -> str:
    layers = [
        f"{begun} {quoted(one.layer_name)} of {quoted(one.name)} ({quoted(one.layer_type)}, {one.compared.position:,} of "
        f"{one.facts.layers:,})"
        for begun, one in (("Layer", match.a), ("layer", match.b))
    ]
    a, b = match.a.compared.layer, match.b.compared.layer
    figures, both = f"score {similarity(match.score)}", f"{layers[0]} and {layers[1]}"
    verdict = _verdict(match)
    if verdict == "unknown":
        return f"{both} have the {figures}; there are too few untrained layers yet to say whether that is much."
    share = f"more than {_below(match, 'en')} of the untrained layers of that depth"
    if verdict == "untrained":
        return f"{both} are no more alike than untrained layers can be ({figures}, {share})."
    if verdict == "loose":
        return f"{both} have more in common than untrained layers of that depth, but not much ({figures}, {share})."
    why = {
        "input": f"largely because both still resemble the images themselves ({_pair(a.input_cka, b.input_cka, ' and ')})",
        "labels": f"and both separate the classes (likeness to the labels {_pair(a.label_cka, b.label_cka, ' and ')}), "
        "which neither the pixels nor untrained layers do as well",
        "other": "by features that the classes do not explain alone",
        "unexplained": "",
    }[verdict]
    return f"{both} arrange the probe images alike ({figures}, {share}){why and f', {why}'}."


def _advice_en(match: LayerMatch) -> str:
    weaker, other = _weaker_first(match)
    worst, last = weaker.facts.confusion, layer(weaker.layer_name, weaker.layer_type)
    unwell = layer(weaker.facts.unwell_layer or "", weaker.facts.unwell_type)
    labels = _pair(weaker.compared.layer.label_cka, other.compared.layer.label_cka, " against ")
    phrases: dict[Advice, str] = {
        "unwell": f"find out why {unwell} gives nothing that tells images apart",
        "layer": f"train longer or widen the layers up to {last}, which separates the classes less ({labels})",
        "capacity": "try a larger network",
        "calibrate": "calibrate its confidence, as by temperature scaling",
        "confusion": f"add training images of class {quoted(worst.true_name)} like those taken for class "
        f"{quoted(worst.predicted_name)}"
        if worst
        else "",
        "look": "look at the images it is least sure of",
    }
    return f"The owner of {quoted(weaker.name)} could {' and '.join(phrases[one] for one in advice(weaker, other))}."


def _difference_ko(match: LayerMatch) -> str:
    shares = [
        f"{quoted(one.name)} 모델이 {percent(one.facts.accuracy, 'ko')}({100 * one.facts.interval:g}% 신뢰구간 "
        f"{percent(one.facts.accuracy_low, 'ko')}~{percent(one.facts.accuracy_high, 'ko')})"
        for one in (match.a, match.b)
    ]
    sentence = f"테스트 정확도는 {shares[0]}, {shares[1]}"
    if not match.same_test_images:
        return f"{sentence}이며, 서로 다른 데이터셋의 이미지이므로 어느 쪽이 낫다고 할 수 없습니다."
    if match.alone is None:
        return f"{sentence}이며, 이미지별로 비교할 답이 아직 없어 어느 쪽이 낫다고 할 수 없습니다."
    alone = match.alone
    sentence = (
        f"{sentence}입니다. 같은 이미지 {alone.images:,}장 가운데 {quoted(match.a.name)} 모델만 맞힌 것은 {alone.only_a:,}장, "
        f"{quoted(match.b.name)} 모델만 맞힌 것은 {alone.only_b:,}장"
    )
    if alone.better is None:
        return f"{sentence}이며, 우연으로 설명되는 차이({told(alone.p_value)})이므로 어느 쪽이 낫다고 할 수 없습니다."
    better = quoted(match.a.name if alone.better == "a" else match.b.name)
    return f"{sentence}입니다. {better} 모델이 더 정확하며, 우연으로 설명되지 않는 차이입니다({told(alone.p_value)})."


def _mistakes_ko(match: LayerMatch) -> str:
    sentence = []
    for one in (match.a, match.b):
        sentence.append(f"{quoted(one.name)} 모델은 {_mistake_ko(one.facts)}.")
    return " ".join(sentence)


def _mistake_ko(facts: DescriptionFacts) -> str:
    if facts.answers == "constant" and facts.constant_class is not None:
        return f"어떤 이미지에도 {quoted(facts.constant_class)} 클래스라고 답합니다"
    if facts.answers != "meaningful":
        return "우연보다 나은 답을 하지 못하므로 혼동을 따질 수 없습니다"
    if facts.confusion is not None:
        worst = facts.confusion
        return f"{quoted(worst.true_name)} 클래스를 {quoted(worst.predicted_name)} 클래스로 가장 자주 혼동합니다"
    return "클래스를 서로 혼동하지 않습니다" if facts.correct == facts.images else "알려진 혼동이 없습니다"


def _structure_ko(match: LayerMatch) -> str:
    sentence = []
    for one in (match.a, match.b):
        parts = [f"{quoted(type_)} {number:,}개" for type_, number in most_common(one)]
        size = [f"매개변수 {one.parameters:,}개"] if one.parameters is not None else []
        sentence.append(f"{quoted(one.name)} 모델: {', '.join(size + parts) or f'층 {one.facts.layers:,}개'}.")
    return " ".join(sentence)


def _match_ko(match: LayerMatch) -> str:
    layers = [
        f"{quoted(one.name)} 모델의 {quoted(one.layer_name)} 층({quoted(one.layer_type)}, 층 {one.facts.layers:,}개 중 "
        f"{one.compared.position:,}번째)"
        for one in (match.a, match.b)
    ]
    a, b = match.a.compared.layer, match.b.compared.layer
    figures, both = f"점수 {similarity(match.score)}", f"{layers[0]}과 {layers[1]}"
    verdict = _verdict(match)
    if verdict == "unknown":
        return f"{both}의 {figures}: 비교할 학습되지 않은 층이 아직 적어 높은 값인지 판단할 수 없습니다."
    share = f"같은 깊이의 학습되지 않은 층 {_below(match, 'ko')}보다 높음"
    if verdict == "untrained":
        return f"{both}의 유사도는 학습되지 않은 층에서도 나올 수 있는 정도입니다({figures}, {share})."
    if verdict == "loose":
        return f"{both}은 학습되지 않은 층보다는 공통점이 많지만 크지는 않습니다({figures}, {share})."
    why = {
        "input": f"주로 둘 다 아직 입력 이미지와 닮았기 때문입니다({_pair(a.input_cka, b.input_cka, ', ')})",
        "labels": f"둘 다 픽셀이나 학습되지 않은 층보다 클래스를 잘 나눕니다(레이블과의 유사도 "
        f"{_pair(a.label_cka, b.label_cka, ', ')})",
        "other": "클래스만으로는 설명되지 않는 특징을 공유합니다",
        "unexplained": "",
    }[verdict]
    if not why:
        return f"{both}은 프로브 이미지를 비슷하게 배열합니다({figures}, {share})."
    return f"{both}은 프로브 이미지를 비슷하게 배열하며({figures}, {share}), {why}."


def _advice_ko(match: LayerMatch) -> str:
    weaker, other = _weaker_first(match)
    worst, last = weaker.facts.confusion, layer_ko(weaker.layer_name, weaker.layer_type)
    unwell = layer_ko(weaker.facts.unwell_layer or "", weaker.facts.unwell_type)
    labels = _pair(weaker.compared.layer.label_cka, other.compared.layer.label_cka, " 대 ")
    phrases: dict[Advice, str] = {
        "unwell": f"{unwell}이 왜 이미지를 구별하지 못하는지 찾기",
        "layer": f"클래스를 덜 나누는 {last}까지 더 오래 학습시키거나 넓히기(레이블과의 유사도 {labels})",
        "capacity": "더 큰 신경망 써 보기",
        "calibrate": "온도 스케일링 등으로 확신도 보정하기",
        "confusion": f"{quoted(worst.predicted_name)} 클래스로 잘못 본 것과 비슷한 "
        f"{quoted(worst.true_name)} 클래스의 학습 이미지 늘리기"
        if worst
        else "",
        "look": "가장 확신이 낮은 이미지 살펴보기",
    }
    sentence = ", ".join(phrases[one] for one in advice(weaker, other))
    return f"{quoted(weaker.name)} 모델에는 다음을 시도할 만합니다: {sentence}."
