"""The guard of a comparison in words: what it claims of the data must be so; what it advises is free, and marked so.

A sentence is a claim or advice. Of a claim every number has to be one of the facts, rounded, and of the model that it
is said of; every name has to exist; who is called better, larger or deeper has to be; layers are alike, and separate
the classes, only where the figures say so. Of advice that holds too, but for numbers that are not said of the data:
0.3 of a dropout, twice as long. Whether a claim is the right explanation is beyond this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from layerscope.functions.analysis.wording.attribution import THIS_MODEL, owner
from layerscope.functions.analysis.wording.directions import comparisons, holds, mentions
from layerscope.functions.analysis.wording.ground import Ground, Side, Which
from layerscope.functions.analysis.wording.known_names import blank, unknown_names, without
from layerscope.functions.analysis.wording.quantities import Known, Quantity, is_known, quantities

Kind = Literal["claim", "advice"]
Wrong = Literal["number", "name", "direction", "superiority", "alike", "classes", "confusion"]

_ADVICE: Final = re.compile(
    r"(?:^|[,;:] )(?:so |please |also |then |first |next |finally |additionally,? |alternatively,? "
    r"|for example,? )*(?:try|consider|add|use|train|increase|decrease"
    r"|reduce|widen|replace|apply|collect|augment|switch|insert|lower|raise|tune|fine-tune|regulari[sz]e"
    r"|experiment|look|inspect|check"
    r"|calibrate|start|keep|run|freeze|distil|remove|swap|initialise|initialize|examine|gather|weight|schedule|warm)\b"
    r"|\b(?:should|could|might (?:try|want|help|benefit)|may (?:help|want|benefit)|recommend\w*|suggest\w*"
    r"|would (?:help|benefit|be worth)"
    r"|worth (?:trying|a try)|it helps to|can (?:try|be tried)|(?:to|would) improve)\b"
    r"|보세요|보십시오|시도|권장|추천|권합|고려해",
    re.IGNORECASE,
)
_ADVISED: Final = re.compile(
    r"해 ?볼|도움이|좋습니다|좋을|바람직|고려|해보|개선|늘리기|줄이기|하기\.?$|하는 것이|할 수 있|필요|\b(?:helps?|can|needs?)\b"
)
"""And what advises only where advice was asked for; elsewhere it is how claims are put as well."""
_OF_DATA: Final = re.compile(
    r"accura|correct|right\b|\berrors?\b|parameters?\b|multiply-adds|similarity|\bscores?\b|percentile|interval"
    r"|confus|currently|현재"
    r"|정확도|매개\s?변수|파라미터|연산량|유사도|점수|신뢰\s?구간|혼동|오류율",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(
    r"(?:;|—|–|, (?:while|whereas|but|and|with|which)\b|(?<=[고며만데]),?) |\b(?:while|whereas|because|since|but)\b|(?<=[^\d]), "
)
_CONFUSES: Final = re.compile(
    r"mistak|confus|misclassif|\btakes?\b|\btook\b|혼동|착각|오인|잘못|헷갈|오분류", re.IGNORECASE
)
_SUPERIOR: Final = re.compile(
    r"better|outperform|superior|beats|stronger|wins|more accurate|우수|뛰어|앞서|앞섭|낫|나은|더 정확|성능이",
    re.IGNORECASE,
)
_HEDGED: Final = re.compile(
    r"overlap|chance|significan|not (?:shown|clear|certain|conclusive)|inconclusive|cannot (?:say|tell|be said)|noise"
    r"|겹|우연|유의|단정|확실하지|확정|알 수 없|할 수 없|불확실|오차",
    re.IGNORECASE,
)
_NEITHER: Final = re.compile(
    r"neither\b[^.]{0,40}\bbetter|no (?:clear|significant|real) (?:winner|difference)|equally (?:accurate|good)"
    r"|(?:same|identical) accuracy"
    r"|intervals? (?:of the two |do )?overlap|(?:어느|누가)[^.]{0,24}낫다고 할 수 없|정확도가 (?:같|동일)"
    r"|구간이 (?:서로 )?겹[치칩쳐](?!지)|유의(?:미)?한 차이가 (?:없|아)",
    re.IGNORECASE,
)
_ALIKE: Final = re.compile(
    r"\b(?:are|look|behave|respond|encode|represent|arrange|see|is)\b[^.;]{0,60}?\b(?:alike|similarly|similar"
    r"|the same way|much the same)\b"
    r"|strong(?:ly)? (?:similar|match)|\bclosely match|\bhighly similar|비슷하|비슷한|비슷합|유사하|유사한|유사합|닮",
    re.IGNORECASE,
)
_SEPARATES: Final = re.compile(
    r"(?:both|layers?)\b[^.]{0,40}\bseparates? the classes|클래스를 (?:잘 |뚜렷이 |뚜렷하게 )?(?:나누|나눕|나눠|구분|분리)",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(
    r"\b(?:not|no|n't|cannot|nor|neither|hardly|barely|only|than untrained|too few|less)\b|않|못|없|아니|이하|뿐|약하|불과|어렵",
    re.IGNORECASE,
)
_COUNTED: Final = {
    r"[‘`]?Conv2d": "Conv2d$",
    r"[‘`]?Linear\b": "Linear$",
    r"[‘`]?BatchNorm2d": "BatchNorm2d$",
    r"convolution(?:s|al layers?)|합성곱(?! ?신경망)": "Conv",
    r"(?:linear|fully[ -]connected|dense) layers?|선형|완전 ?연결": "Linear$",
}
"""What may stand beside a number of layers, and which types it means."""
_SAID_OF: Final = {
    r"(?<!calibration )error(?: rate)?s? (?:of|is|at)? ?(?:about |roughly )?$|오류율[은이]? ?(?:약 )?$": "error",
    r"accuracy (?:of|is|at|:)? ?(?:about |roughly )?$|(?<!오차)정확도[는가]? ?(?:약 )?$": "accuracy",
    r"(?<!label )(?:\bscore|similarity)(?: of| is|:| =)? ?(?:only |about )?$|(?<!과의 )(?:점수|유사도)[는은가이]?:? ?$": "score",
}


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a text is not shown: what is wrong, and the words that are."""

    wrong: Wrong
    said: str


def kind_of(sentence: str, ground: Ground, *, advising: bool) -> Kind:
    """Return whether a sentence claims or advises; `advising`: it stands where advice was asked for."""
    if _ADVICE.search(sentence) or (advising and _ADVISED.search(sentence)):
        return "advice"
    return "claim" if not advising or mentions(sentence, ground) or _OF_DATA.search(sentence) else "advice"


def objection(sentences: Sequence[tuple[str, Kind]], ground: Ground) -> Objection | None:
    """Return what is wrong in one section of a text, if anything."""
    whole, subject = " ".join(one for one, _ in sentences), None
    hedged = bool(_HEDGED.search(whole))
    for sentence, kind in sentences:
        spoken = [which for _, _, which in mentions(sentence, ground)]
        this = subject if THIS_MODEL.match(sentence) else None
        for found in _objections(
            sentence, kind, ground, this or (spoken[0] if len(set(spoken)) == 1 else None), hedged
        ):
            return found
        subject = this or next(iter(spoken), None)
    return None


def _objections(sentence: str, kind: Kind, ground: Ground, subject: Which | None, hedged: bool) -> Iterator[Objection]:
    for name in unknown_names(sentence, ground, may_add=kind == "advice"):
        yield Objection("name", name)
    for number in _unknown_numbers(sentence, kind, ground, subject):
        yield Objection("number", number)
    for found in comparisons(sentence, ground, subject):
        if holds(found, ground) is False:
            yield Objection("direction", found.said)
        elif found.measure == "accuracy" and ground.weaker is None and not hedged and _SUPERIOR.search(found.said):
            yield Objection("superiority", found.said)
    if ground.weaker is not None and (match := _NEITHER.search(sentence)):
        yield Objection("superiority", match[0])
    yield from _wrong_of_layers(sentence, ground)
    yield from _wrong_confusion(sentence, ground, subject)


def _wrong_of_layers(sentence: str, ground: Ground) -> Iterator[Objection]:
    denied = bool(_DENIED.search(sentence))
    of_match = re.search(r"\blayers?\b|층", sentence) or all(one in sentence for one in ground.matched)
    if ground.alike is not True and not denied and of_match and (match := _ALIKE.search(sentence)):
        yield Objection("alike", match[0])
    if not ground.separates and not denied and (match := _SEPARATES.search(sentence)):
        yield Objection("classes", match[0])


def _wrong_confusion(sentence: str, ground: Ground, subject: Which | None) -> Iterator[Objection]:
    """Yield a pair of classes that is said the wrong way round, or of the wrong model."""
    if not _CONFUSES.search(sentence):
        return
    for start, end in _clauses(sentence):
        clause = sentence[start:end]
        spoken = {which for _, _, which in mentions(clause, ground)}
        which = next(iter(spoken)) if len(spoken) == 1 else subject
        pair = _taken_for(clause)
        if which is None or pair is None or not _CONFUSES.search(clause):
            continue
        right = ground.sides[which].confusion
        if right is None or pair != right:
            yield Objection("confusion", " / ".join(pair))


def _taken_for(clause: str) -> tuple[str, str] | None:
    """Return which class is said to be taken for which, where both are quoted and the order is plain."""
    name = r"[‘“\"']([^‘’“”\"']{1,60})[’”\"']"
    english = re.search(
        rf"(?:mistak\w*|takes?|took|misclassif\w*)[^‘“\"']{{0,24}}{name} (?:images )?(?:for|as) (?:an? |the )?(?:class )?{name}",
        clause,
    )
    korean = re.search(rf"{name}(?: ?클래스)?(?:을|를) {name}(?: ?클래스)?(?:으)?로", clause)
    found = english or korean
    return (found[1], found[2]) if found else None


def _unknown_numbers(sentence: str, kind: Kind, ground: Ground, subject: Which | None) -> Iterator[str]:
    plain = without(sentence, ground.names, bare=bool(_CONFUSES.search(sentence)))
    plain = re.sub(r"(?<=\d) ?[x×] ?(?=\d)", blank, plain)
    places = mentions(sentence, ground)
    numbers = sorted(quantities(plain), key=lambda one: one.start)
    for found in numbers:
        if kind == "advice" and not _is_said_of_data(sentence, found):
            continue
        whose = owner(sentence, places, found, numbers, subject)
        sides = [ground.sides[whose]] if whose else list(ground.sides.values())
        if not _is_of(sentence, found, sides, ground):
            yield found.said


def _is_of(sentence: str, found: Quantity, sides: Sequence[Side], ground: Ground) -> bool:
    """Return whether a number is one of these models': of what it is said of, where the words beside it tell that."""
    before, after = sentence[: found.start], sentence[found.end :]
    for pattern, types in _COUNTED.items():
        if re.match(rf"(?:개의)? ?(?:{pattern})", after, re.IGNORECASE) or re.search(
            rf"(?:{pattern})’?(?: ?층[이은을]?)? $", before, re.IGNORECASE
        ):
            if not float(found.value).is_integer() or found.unit in ("percent", "times"):
                break
            return any(_counted(one, types) == found.value for one in sides)
    for pattern, measure in _SAID_OF.items():
        if found.unit != ("none" if measure == "score" else "percent") or not re.search(pattern, before, re.IGNORECASE):
            continue
        if measure == "score":
            return is_known(found, Known(others=ground.shared.others))
        right = [one.measures["accuracy"] or 0.0 for one in sides]
        return is_known(found, Known(shares=tuple(one if measure == "accuracy" else 1 - one for one in right)))
    pool = ground.shared
    for one in sides:
        pool += one.known
    return is_known(found, pool)


def _counted(side: Side, types: str) -> int:
    return sum(number for name, number in side.counts.items() if re.match(types, name))


def _is_said_of_data(sentence: str, found: Quantity) -> bool:
    """Return whether a number in advice is said of what was measured: the clause that it stands in speaks of that."""
    start, end = next(one for one in _clauses(sentence) if one[0] <= found.start < max(one[1], one[0] + 1))
    before, after = sentence[max(start, found.start - 40) : found.start], sentence[found.end : min(end, found.end + 36)]
    return bool(_OF_DATA.search(before) or _OF_DATA.search(after))


def _clauses(sentence: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _CLAUSE.finditer(sentence):
        yield start, match.end()
        start = match.end()
    yield start, len(sentence) + 1
