"""What each finding says in Korean; names come before a noun that takes the particle, whatever they end in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from layerscope.functions.analysis.wording.numerals import percent, points, quoted
from layerscope.functions.findings.english import Named, Sentences
from layerscope.schemas.products.findings import FindingKind

PREPARED: Final = {
    "inverted": ("반전한(255에서 픽셀값을 뺀)", "학습할 때나 데이터셋을 추가할 때 이미지를 반전하거나"),
    "channels_reversed": ("채널 순서를 뒤집은(RGB 대신 BGR)", "학습할 때 이미지를 RGB로 읽거나"),
    "transposed": ("행과 열을 바꾼", "학습할 때 이미지의 행과 열을 바꾸지 말거나"),
    "zero_to_one": ("0..1로만 맞춘", "데이터셋을 --mean 0 --std 1(채널마다 하나)로 추가하거나"),
    "minus_one_to_one": ("-1..1로 맞춘", "데이터셋을 --mean 0.5 --std 0.5(채널마다 하나)로 추가하거나"),
    "imagenet": (
        "ImageNet의 평균과 표준편차로 정규화한",
        "데이터셋을 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225로 추가하거나",
    ),
    "zero_to_255": ("0..255 그대로인", "학습할 때 픽셀값을 255로 나누어 정규화하거나"),
}
SEGMENTS: Final = {
    "brightness": ("가장 어두운", "가장 밝은", "밝기가 중간인"),
    "contrast": ("대비가 가장 낮은", "대비가 가장 높은", "대비가 중간인"),
    "sharpness": ("가장 흐린", "가장 선명하거나 잡음이 많은", "선명도가 중간인"),
    "colour": ("색이 가장 옅은", "색이 가장 짙은", "색이 중간인"),
}


def _class(one: Named, place: int) -> str:
    return f"{quoted(one.names[place])} 클래스"


def _listed(names: tuple[str, ...], most: int) -> str:
    return ", ".join(quoted(name) for name in names[:most]) + (" 등" if len(names) > most else "")


def _share(one: Named, figure: str) -> str:
    return percent(one.found.figures[figure], "ko")


def _points(one: Named, figure: str) -> str:
    return points(one.found.figures[figure], "ko")


def _outputs_not_finite(one: Named) -> Sentences:
    return (
        f"이미지 {one.number('images'):,}장에서 출력이 유한하지 않습니다",
        f"테스트 이미지 {one.number('of'):,}장 가운데 {one.number('images'):,}장({_share(one, 'share')})에서 출력이 "
        "NaN이나 무한대이며, "
        "틀린 것으로 셉니다.",
        "0으로 나누는 곳, 0의 로그, 발산한 가중치를 찾고 학습률을 낮춰 학습하세요.",
    )


def _constant_answer(one: Named) -> Sentences:
    return (
        f"무엇을 보여도 {_class(one, 0)}라고 답합니다",
        f"테스트 이미지 {one.number('of'):,}장 가운데 {one.number('answered'):,}장의 답이 같아 정확도가 이 클래스의 "
        f"비율({_share(one, 'share')}) 정도입니다.",
        "학습 중에 손실이 줄었는지, 학습한 뒤의 가중치를 저장했는지, 이미지를 데이터셋대로 정규화했는지 확인하세요.",
    )


def _labels_permuted(one: Named) -> Sentences:
    accuracy, then = _share(one, "accuracy"), _share(one, "accuracy_then")
    if one.found.way == "shifted":
        title = f"레이블이 {one.number('shift'):+d}만큼 밀려 있습니다"
        text = f"클래스 번호마다 {one.number('shift'):+d}인 번호로 답합니다. 되돌리면 정확도가 {accuracy}에서 {then}로 오릅니다."
    else:
        title = f"레이블의 순서가 다릅니다: 클래스 {one.number('moved'):,}개가 바뀌어 있습니다"
        text = (
            f"{_class(one, 0)}의 이미지는 대부분 {_class(one, 1)}라고 답하며, 다른 클래스도 이렇게 하나씩 바뀌어 있습니다. "
            f"되돌리면 정확도가 {accuracy}에서 {then}로 오릅니다."
        )
    return title, text, "데이터셋의 클래스 순서대로 학습하거나 마지막 층의 행을 그 순서로 바꾸세요."


def _prepared_otherwise(one: Named) -> Sentences:
    how, action = PREPARED[one.found.way]
    return (
        "다르게 준비한 이미지로 학습한 모델입니다",
        f"같은 테스트 이미지 {one.number('images'):,}장을 {how} 형태로 주면 {one.number('correct_then'):,}장"
        f"({_share(one, 'accuracy_then')})을 맞히고, 데이터셋대로 주면 "
        f"{one.number('correct'):,}장({_share(one, 'accuracy')})을 맞힙니다.",
        f"{action}, 같은 준비 과정을 모델 안에 넣으세요.",
    )


def _accuracy_at_chance(one: Named) -> Sentences:
    return (
        "우연보다 잘 맞히지 못합니다",
        f"정확도는 {_share(one, 'accuracy')}({_share(one, 'low')}~{_share(one, 'high')})이고, 같은 답을 이미지에 "
        "아무렇게나 나누어 주어도 "
        f"{_share(one, 'chance')}가 됩니다.",
        "학습한 가중치가 맞는지, 레이블이 섞이지 않았는지, 이미지를 학습 때처럼 준비했는지 확인하세요.",
    )


def _classes_never_answered(one: Named) -> Sentences:
    return (
        f"클래스 {one.number('classes'):,}개를 답하는 일이 없습니다",
        f"{_listed(one.names, 5)} 클래스라고 답한 이미지가 없지만, 테스트 이미지 "
        f"{one.number('images'):,}장({_share(one, 'share')})이 여기에 "
        "속하며 모두 틀립니다.",
        "학습 데이터에 이 클래스가 있었는지 확인하고, 드문 클래스에는 손실의 가중치나 이미지를 더 주세요.",
    )


def _class_absorbs_errors(one: Named) -> Sentences:
    return (
        f"틀린 답이 {_class(one, 0)}에 몰립니다",
        f"틀린 답 {one.number('errors'):,}개 가운데 {one.number('into'):,}개({_share(one, 'share')})가 "
        f"{_class(one, 0)}입니다. 고르게 나뉘면 "
        f"{one.number('even'):,}개쯤입니다. 이 클래스의 이미지는 {one.number('support'):,}장인데 "
        f"{one.number('answered'):,}번 답했습니다.",
        "이 이미지들을 보고, 학습 데이터에 이 클래스가 얼마나 있었는지, 다른 레이블이 섞이지 않았는지 확인하세요.",
    )


def _weak_classes(one: Named) -> Sentences:
    number = one.number("classes")
    return (
        f"{_class(one, 0)}에 약합니다" + (f"(그 밖에 {number - 1}개)" if number > 1 else ""),
        f"{_class(one, 0)}의 이미지 {one.number('support'):,}장 가운데 "
        f"{one.number('right'):,}장({_share(one, 'recall')})만 알아보며, 나머지 "
        f"이미지에서는 {_share(one, 'others')}입니다.",
        "무엇으로 보는지 확인하고, 이런 클래스의 이미지를 더 많이, 더 다양하게 주세요.",
    )


def _confused_pairs(one: Named) -> Sentences:
    number = one.number("pairs")
    ends = one.names[: 2 * number]
    pairs = ", ".join(f"{quoted(ends[k])}와(과) {quoted(ends[k + 1])}" for k in range(0, len(ends), 2))
    return (
        f"틀린 답은 대부분 {pairs} 사이에 있습니다",
        f"클래스 {number:,}쌍이 틀린 답 {one.number('errors'):,}개 가운데 "
        f"{one.number('explained'):,}개({_share(one, 'share')})를 차지하며, "
        f"고르게 나뉠 때보다 많습니다. {_class(one, 0)}를 {_class(one, 1)}로 본 것이 {one.number('forth'):,}장, 반대가 "
        f"{one.number('back'):,}장입니다.",
        "이 이미지들을 보세요. 두 클래스를 가르는 특징이 증강과 이미지 크기 때문에 사라지지 않아야 합니다.",
    )


def _weak_segment(one: Named) -> Sentences:
    least, most, middle = SEGMENTS[one.found.property]
    which = {"least": least, "most": most, "middle": middle}[one.found.way]
    return (
        f"{which} 이미지에 약합니다",
        f"{which} 테스트 이미지 {one.number('images'):,}장의 정확도는 {_share(one, 'accuracy')}이고, 같은 클래스의 "
        "전체 이미지에서는 "
        f"{_share(one, 'expected')}입니다.",
        "이 이미지들을 보고, 필요하면 증강을 써서 이런 이미지를 학습에 넣으세요.",
    )


def _labels_suspect(one: Named) -> Sentences:
    return (
        f"테스트 이미지 {one.number('images'):,}장의 레이블이 의심스럽습니다",
        f"테스트 이미지 {one.number('of'):,}장 가운데 {one.number('images'):,}장에서, 다른 클래스를 그 클래스의 "
        "이미지 평균보다 더 확신합니다. "
        f"틀린 답은 모두 {one.number('errors'):,}개입니다. 레이블이 잘못되었거나 모델이 확신하며 틀린 것입니다. "
        "첫째는 이미지 "
        f"{one.number('first')}번으로, 레이블은 {_class(one, 0)}인데 확률은 {_share(one, 'first_own')}입니다.",
        "이 이미지들을 보고, 이 테스트로 모델을 비교하기 전에 잘못된 레이블을 고치세요.",
    )


def _labels_conflict(one: Named) -> Sentences:
    return (
        f"똑같은 테스트 이미지에 레이블이 여럿입니다: 이미지 {one.number('groups'):,}개",
        f"테스트 이미지 {one.number('images'):,}장은 픽셀까지 같은 이미지가 다른 클래스에도 "
        f"있습니다({_class(one, 0)}, {_class(one, 1)} 등). "
        f"그 가운데 {one.number('lost'):,}장은 어떤 모델도 맞힐 수 없습니다.",
        "이 레이블을 고치거나 이미지를 빼세요.",
    )


def _test_images_in_train(one: Named) -> Sentences:
    apart = (
        f" 이들을 빼면 정확도는 {_share(one, 'accuracy')}가 아니라 {_share(one, 'accuracy_apart')}입니다."
        if "accuracy_apart" in one.found.figures
        else ""
    )
    return (
        f"테스트 이미지 {one.number('images'):,}장이 학습 데이터에도 있습니다",
        f"테스트 이미지 {one.number('of'):,}장 가운데 {one.number('images'):,}장({_share(one, 'share')})이 학습 "
        "이미지와 픽셀까지 같고, 그 정확도는 "
        f"{_share(one, 'accuracy_shared')}입니다.{apart}",
        "둘 가운데 한쪽에서 빼고 데이터셋을 다시 추가하세요.",
    )


def _near_duplicates(one: Named) -> Sentences:
    return (
        f"다른 테스트 이미지와 거의 같은 테스트 이미지가 {one.number('images'):,}장 있습니다",
        f"테스트 이미지 {one.number('of'):,}장 가운데 {one.number('images'):,}장({_share(one, 'share')})이 다른 한 장과 거의 "
        f"같습니다. 차이는 무작위로 고른 두 이미지의 {_share(one, 'distance')} 이하입니다. 예: {one.number('first')}번과 "
        f"{one.number('first_near')}번. 같은 이미지를 두 번 세므로 신뢰구간이 실제보다 좁습니다.",
        "하나씩만 남기고 데이터셋을 다시 추가하세요.",
    )


def _near_duplicates_in_train(one: Named) -> Sentences:
    apart = (
        f", 나머지 이미지의 정확도는 {_share(one, 'accuracy_apart')}입니다"
        if "accuracy_apart" in one.found.figures
        else "입니다"
    )
    return (
        f"학습 이미지와 거의 같은 테스트 이미지가 {one.number('images'):,}장 있습니다",
        f"테스트 이미지 {one.number('of'):,}장 가운데 {one.number('images'):,}장({_share(one, 'share')})이 학습 이미지와 거의 "
        f"같습니다. 예: {one.number('first')}번과 학습 이미지 {one.number('first_near')}번. 이 이미지들의 정확도는 "
        f"{_share(one, 'accuracy_near')}{apart}.",
        "복사본, 한 영상의 프레임, 한 사진의 조각은 한쪽에만 두도록 나누고 데이터셋을 다시 추가하세요.",
    )


def _test_imbalanced(one: Named) -> Sentences:
    return (
        f"테스트 이미지가 아주 적은 클래스가 {one.number('classes'):,}개 있습니다",
        f"{_class(one, 0)}의 이미지는 {one.number('of'):,}장 가운데 {one.number('images'):,}장({_share(one, 'share')})이며, "
        f"고르게 나누면 {one.number('even'):,}장입니다. 정확도는 {_share(one, 'accuracy')}, 클래스마다 똑같이 세면 "
        f"{_share(one, 'balanced_accuracy')}입니다.",
        "균형 정확도로 판단하고, 이런 클래스의 테스트 이미지를 더 모으세요.",
    )


def _train_imbalanced(one: Named) -> Sentences:
    return (
        f"학습 이미지가 아주 적은 클래스가 {one.number('classes'):,}개 있습니다",
        f"{_class(one, 0)}의 이미지는 {one.number('of'):,}장 가운데 {one.number('images'):,}장({_share(one, 'share')})이며, "
        f"고르게 나누면 {one.number('even'):,}장입니다.",
        "이런 클래스에 손실의 가중치를 더 주거나, 더 자주 뽑거나, 이미지를 더 모으세요.",
    )


def _overfitted(one: Named) -> Sentences:
    figures = one.found.figures
    if one.found.way == "accuracy":
        text = (
            f"마지막 {one.number('last'):,}번째 에포크의 테스트 정확도는 {_share(one, 'last_accuracy')}인데, "
            f"{one.number('best'):,}번째 에포크는 "
            f"{_share(one, 'best_accuracy')}였습니다."
        )
    else:
        text = (
            f"테스트 손실이 {one.number('best'):,}번째 에포크의 {figures['best_loss']:.3g}에서 마지막 "
            f"{one.number('last'):,}번째 에포크의 "
            f"{figures['last_loss']:.3g}로 오르는 동안 학습 손실은 계속 줄었습니다."
        )
    return (
        "가장 좋은 에포크를 지나서까지 학습했습니다",
        text,
        f"{one.number('best')}번째 에포크의 체크포인트를 올리거나 일찍 멈추세요. 증강과 가중치 감쇠가 도움이 됩니다.",
    )


def _undertrained(one: Named) -> Sentences:
    figures = one.found.figures
    return (
        "아직 나아지는 중에 학습이 끝났습니다",
        f"{one.number('earlier'):,}번째 에포크에서 마지막 {one.number('last'):,}번째 에포크까지 테스트 손실이 "
        f"{figures['earlier_loss']:.3g}에서 "
        f"{figures['last_loss']:.3g}로 {_share(one, 'fall')} 줄었습니다.",
        "더 오래, 또는 더 높은 학습률로 학습하세요.",
    )


def _layers_dead(one: Named) -> Sentences:
    how = "유한하지 않은 값을 내는" if one.found.way == "non_finite" else "모든 이미지에 똑같이 반응하는"
    return (
        f"이미지를 구별하지 못하는 층이 {one.number('layers'):,}개 있습니다",
        f"층 {one.number('of'):,}개 가운데 {one.number('layers'):,}개가 모든 프로브 이미지에 똑같이 반응하거나 "
        "유한하지 않은 값을 냅니다. 첫째는 "
        f"{_listed(one.found.layers, 1)}로, {how} 층입니다.",
        "그 앞의 층을 보세요. 죽은 ReLU, 0인 가중치, 빠진 정규화가 흐름을 끊습니다.",
    )


def _channels_dead(one: Named) -> Sentences:
    return (
        f"{_listed(one.found.layers, 1)} 층의 채널이 많이 죽어 있습니다",
        f"채널 {one.number('channels'):,}개 가운데 {one.number('many'):,}개는 어떤 테스트 이미지에서도 0보다 크지 "
        "않습니다. 이런 층은 "
        f"{one.number('layers'):,}개, 채널은 모두 {one.number('in_all'):,}개입니다.",
        "학습률을 낮추거나 누설 활성화나 정규화를 쓰면 채널이 살아남습니다. 모델에서 빼도 됩니다.",
    )


def _channels_constant(one: Named) -> Sentences:
    return (
        f"{_listed(one.found.layers, 1)} 층에 값이 변하지 않는 채널이 많습니다",
        f"채널 {one.number('channels'):,}개 가운데 {one.number('many'):,}개는 모든 테스트 이미지의 모든 곳에서 값이 같습니다. "
        f"이런 층은 {one.number('layers'):,}개, 채널은 모두 {one.number('in_all'):,}개입니다.",
        "앞의 가중치가 가중치 감쇠나 가지치기로 0이 되었는지 보세요. 그 값은 다음 층의 편향에 넣을 수 있습니다.",
    )


def _confidence(one: Named) -> Sentences:
    figures = one.found.figures
    helps = figures["error_after"] < figures["error_before"]
    brings = (
        f" 이미지 절반에 맞춘 온도 {figures['temperature']:.2f}로 출력을 나누면 다른 절반에서의 차이가 "
        f"{_points(one, 'error_before')}에서 "
        f"{_points(one, 'error_after')}로 바뀝니다."
    )
    return (
        "맞히는 것보다 더 확신합니다" if one.found.kind == "overconfident" else "맞히는 것보다 덜 확신합니다",
        f"확신도와 정확도가 평균 {_points(one, 'error')} 어긋나며, 우연으로 설명되는 것은 {_points(one, 'floor')}까지입니다."
        + (brings if helps else ""),
        "소프트맥스 앞에서 출력을 그 온도로 나누세요. 정확도는 그대로입니다."
        if helps
        else "확신도를 확률로 받아들이지 마세요. 온도 하나로는 고쳐지지 않습니다.",
    )


SENTENCES: Final[Mapping[FindingKind, Callable[[Named], Sentences]]] = {
    "outputs_not_finite": _outputs_not_finite,
    "constant_answer": _constant_answer,
    "labels_permuted": _labels_permuted,
    "prepared_otherwise": _prepared_otherwise,
    "accuracy_at_chance": _accuracy_at_chance,
    "classes_never_answered": _classes_never_answered,
    "class_absorbs_errors": _class_absorbs_errors,
    "weak_classes": _weak_classes,
    "confused_pairs": _confused_pairs,
    "weak_segment": _weak_segment,
    "labels_suspect": _labels_suspect,
    "labels_conflict": _labels_conflict,
    "test_images_in_train": _test_images_in_train,
    "near_duplicates": _near_duplicates,
    "near_duplicates_in_train": _near_duplicates_in_train,
    "test_imbalanced": _test_imbalanced,
    "train_imbalanced": _train_imbalanced,
    "overfitted": _overfitted,
    "undertrained": _undertrained,
    "layers_dead": _layers_dead,
    "channels_dead": _channels_dead,
    "channels_constant": _channels_constant,
    "overconfident": _confidence,
    "underconfident": _confidence,
}


def summary(found: int, checked: int, cost: float) -> Sentences:
    """Say what was found in one sentence."""
    if not found:
        return (
            "잘못된 점을 찾지 못했습니다",
            f"규칙 {checked:,}개를 우연이나 건전한 모델의 기준과 견주었고, 해당하는 것이 없습니다.",
            "같은 이미지에서 다른 모델과 비교해 보세요.",
        )
    first = f" 첫째 때문에 테스트 이미지의 {percent(cost, 'ko')}가 틀립니다." if cost > 0 else ""
    return (
        f"살펴볼 것이 {found:,}가지 있습니다",
        f"규칙 {checked:,}개 가운데 {found:,}개가 해당합니다.{first}",
        "손해가 큰 순서이니 첫째부터 보세요.",
    )
