"""Which of two models a sentence calls better, larger, costlier or deeper, in English and in Korean. Pure.

Only what has a subject is told: a comparison without one, or one that is denied, says nothing that could be held
against a figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from layerscope.functions.analysis.wording.ground import Ground, Measure, Which

_MORE: Final[dict[Measure, str]] = {
    "accuracy": r"\bbetter\b(?!-?\s?(?:understand|suited|to\b))|\bmore accurate\b|\boutperforms?\b"
    r"|\bhigher (?:test |overall )?accuracy\b"
    r"|\baccuracy is (?:\w+ )?higher\b|\bsuperior\b|\bbeats\b|\bstronger\b|\bahead\b|\bwins\b"
    r"|보다[^.,]{0,16}?높은 (?:테스트 )?정확도"
    r"|정확도[^.,]{0,34}?(?:높|우수|앞서|앞섭|낫|좋)"
    r"|더 (?:정확|우수|뛰어)"
    r"|(?:우수|뛰어나|앞서|앞섭|낫습|낫다|나은|나으)"
    r"|성능이 (?:더 |훨씬 |약간 )?(?:높|좋|뛰)",
    "parameters": r"\b(?:larger|bigger|heavier)\b|\b(?:twice|times) as (?:large|big)\b|\bmore (?:\w+ )?parameters\b"
    r"|(?:매개\s?변수|파라미터)[^.]{0,14}?(?:많|크|큽|큰)"
    r"|더 (?:크|큰|큽)(?!게)",
    "multiply_adds": r"\bmore (?:compute|multiply-adds|operations|computation|expensive)\b|\bcostlier\b"
    r"|연산량?[^.]{0,12}?(?:많|크|큽|큰)",
    "layers": r"\bdeeper\b|\bmore layers\b|더 깊|층[이은]? (?:수가 )?더 많",
}
_LESS: Final[dict[Measure, str]] = {
    "accuracy": r"\bworse\b|\bless accurate\b|\bunderperforms?\b|\blower (?:test |overall )?accuracy\b"
    r"|\baccuracy is (?:\w+ )?lower\b"
    r"|\binferior\b|\bweaker\b|\bbehind\b|\blags\b|\bis (?:outperformed|beaten)\b"
    r"|보다[^.,]{0,16}?낮은 (?:테스트 )?정확도"
    r"|정확도[^.,]{0,34}?(?:낮|떨어|뒤)|덜 정확|뒤처|뒤떨|열등|성능이 (?:더 |훨씬 |약간 )?(?:낮|나쁘|떨어)",
    "parameters": r"\b(?:smaller|lighter|slimmer)\b|\b(?:fewer|less) (?:\w+ )?parameters\b"
    r"|(?:매개\s?변수|파라미터)[^.]{0,14}?(?:적|작)|더 (?:작|가볍|가벼)",
    "multiply_adds": r"\b(?:less|fewer) (?:compute|multiply-adds|operations|computation)\b|\bcheaper\b"
    r"|연산량?[^.]{0,12}?(?:적|작)",
    "layers": r"\bshallower\b|\bfewer layers\b|더 얕|층[이은]? (?:수가 )?더 적",
}
_FIGURES: Final = re.compile(r"\([^()]*\)|(?<![\w/.:-])\d[\d.,]*(?: ?%)?")
_DENIED_BEFORE: Final = re.compile(
    r"\b(?:not|no|neither|nor|n't|cannot|never|whether|which (?:one )?is|if|could be|would be|to be)\b[^.;,]{0,32}$",
    re.IGNORECASE,
)
_DENIED_AFTER: Final = re.compile(r"^[^.,]{0,16}?(?:않|아니|없|못|는지|지는|여부|어느)")
_OBJECT_BEFORE: Final = re.compile(
    r"(?:than|as|over|against|to|versus|vs\.?|unlike|compared (?:with|to)|relative to|by|beats|outperforms?|behind"
    r"|ahead of)"
    r"\s+(?:that of\s+|those of\s+)?(?:the |model )?$",
    re.IGNORECASE,
)
_OBJECT_AFTER: Final = re.compile(
    r"^[^가-힣]{0,3}(?:모델|신경망)?(?:의|이|가|은|는)?[^.]{0,28}?(?:보다|에 비해|대비"
    r"|[을를] (?:크게 |조금 )?(?:앞|능가|웃돌|뛰어넘))"
)
_OF_LAYERS: Final = re.compile(r"\blayers?\b|\bconv\w*\b|층|kernel|channel|image|batch|커널|채널|이미지", re.IGNORECASE)
_OF_MODELS: Final = re.compile(r"\bmodels?\b|\bnetworks?\b|parameters?|모델|신경망|매개|파라미터", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A sentence says that `subject` has more, or less, of something than the other."""

    said: str
    subject: Which
    measure: Measure
    more: bool


def comparisons(sentence: str, ground: Ground, subject: Which | None = None) -> Iterator[Comparison]:
    """Yield what a sentence says of the two models; `subject` is whom it speaks of where it names neither."""
    sentence = _FIGURES.sub(lambda match: " " * len(match[0]), sentence)
    for measures, more in ((_MORE, True), (_LESS, False)):
        for measure, pattern in measures.items():
            for match in re.finditer(pattern, sentence, re.IGNORECASE):
                if _is_denied(sentence, match) or _is_of_layers(sentence, measure, match[0]):
                    continue
                whose = _subject(sentence, match, ground) or subject
                if whose is not None:
                    yield Comparison(match[0], whose, measure, more)


def mentions(sentence: str, ground: Ground) -> list[tuple[int, int, Which]]:
    """Return where a sentence mentions which model: start, end, which."""
    found = [
        (match.start(), match.end(), which)
        for which, side in ground.sides.items()
        for match in side.mention.finditer(sentence)
    ]
    return sorted(found)


def holds(found: Comparison, ground: Ground) -> bool | None:
    """Return whether what is said agrees with the figures; None where one of them is not known."""
    other: Which = "b" if found.subject == "a" else "a"
    mine, theirs = (ground.sides[one].measures[found.measure] for one in (found.subject, other))
    if mine is None or theirs is None:
        return None
    return mine > theirs if found.more else mine < theirs


def _is_denied(sentence: str, match: re.Match[str]) -> bool:
    return bool(_DENIED_BEFORE.search(sentence[: match.start()]) or _DENIED_AFTER.match(sentence[match.end() :]))


def _is_of_layers(sentence: str, measure: Measure, said: str) -> bool:
    """Return whether larger and smaller are said of layers or images, not of networks."""
    if measure != "parameters" or _OF_MODELS.search(said):
        return False
    return bool(_OF_LAYERS.search(sentence)) or not _OF_MODELS.search(sentence)


def _subject(sentence: str, match: re.Match[str], ground: Ground) -> Which | None:
    found = mentions(sentence, ground)
    before = [one for one in found if one[0] < match.end()]
    objects = [
        one
        for one in found
        if _OBJECT_BEFORE.search(sentence[: one[0]]) or _OBJECT_AFTER.match(_to_next(sentence, one, found, match))
    ]
    subjects = [one[2] for one in before if one not in objects]
    if subjects:
        return subjects[-1]
    if of := next((one[2] for one in before), None):  # B보다: only the other one can be meant
        return "b" if of == "a" else "a"
    after = [one for one in found if one[0] >= match.end()]
    leads = (
        re.match(r"[^.,;]{0,40}?\b(?:is|are|being|goes to|belongs to|for)\s*$", sentence[match.end() : after[0][0]])
        if after
        else None
    )
    return after[0][2] if leads else None


def _to_next(
    sentence: str, one: tuple[int, int, Which], found: list[tuple[int, int, Which]], match: re.Match[str]
) -> str:
    """Return what stands between a mention and the next one of the other model, or the comparison."""
    ends = [other[0] for other in found if other[0] > one[0] and other[2] != one[2]]
    return sentence[one[1] : min([*ends, max(match.end(), one[1])])]
