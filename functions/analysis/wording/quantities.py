"""Numbers as people write them, and whether one is a known number, rounded as far as it is written. Pure.

`91.2 %`, `0.912`, `61,706`, `61.7k`, `6.2만`, `about 60,000`, `1.9배`, `twice`, `three`: each has a value, a unit and the
place of its last digit that counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

Unit = Literal["percent", "times", "parameters", "layers", "points", "none"]

NOTHING: Final = 1e-7
"""What a share may differ from 0 or 1 by and still be written as such: less than one image in any test part."""
NEARLY: Final = 0.05
"""How far a ratio may be from one in words, such as twice, without a word that says about."""

COARSEST: Final = 0.05
"""A share or a score is no fraction of one digit: 0.3 is the rounding of too many."""

_SCALES: Final = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9} | {
    "천": 1e3,
    "만": 1e4,
    "십만": 1e5,
    "백만": 1e6,
    "천만": 1e7,
    "억": 1e8,
}
_WORDS: Final = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "두": 2,
    "세": 3,
    "네": 4,
    "다섯": 5,
    "여섯": 6,
    "일곱": 7,
    "여덟": 8,
    "아홉": 9,
    "열": 10,
}
_RATIOS: Final = {
    "twice": 2.0,
    "double": 2.0,
    "doubles": 2.0,
    "triple": 3.0,
    "half": 0.5,
    "두 배": 2.0,
    "두배": 2.0,
    "세 배": 3.0,
    "네 배": 4.0,
    "절반": 0.5,
}
_ABOUT: Final = r"(?:about|around|roughly|approximately|nearly|almost|some|over|more than|~|≈|약|대략|거의)\s*"
_NUMBER: Final = re.compile(
    rf"(?P<about>{_ABOUT})?(?P<sign>(?<![\w)%.,])[-−])?(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?!\d|,\d)|\d+)(?:\.(?P<decimals>\d+))?"
    r"(?P<scale>\s?(?:thousand|million|billion)\b|[kKMB](?![A-Za-z])|\s?(?:백만|천만|십만|만|억|천)(?!\w*\s?배))?"
    r"(?P<unit>\s*(?:%\s?p(?![A-Za-z])|%\s?포인트|percentage points?|pp\b|points?\b|포인트|%|percent|per cent|퍼센트"
    r"|times\b|-?fold\b|[x×](?![\d\s]*\d)|배(?![가-힣]*치)|(?:st|nd|rd|th) percentile))?",
    re.IGNORECASE,
)
_IN_WORDS: Final = re.compile(
    rf"(?P<about>{_ABOUT})?(?:(?P<ratio>\b(?:twice|doubles?|triple)\b"
    r"|\bhalf(?= as\b| the (?:size|number|param))|두 ?배|세 배|네 배|절반(?!의 이미지))"
    r"|(?P<count>\btwo(?= (?:conv|linear|fully|dense|hidden|pool))"
    r"|\b(?:three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b(?!-)"
    r"|(?<![가-힣])(?:세|네|다섯|여섯|일곱|여덟|아홉|열)(?=\s?(?:개|층|장|가지))))",
    re.IGNORECASE,
)
_PARAMETERS: Final = re.compile(
    r"\s?(?:개의\s)?(?:trainable |learnable |total )?(?:parameters?\b|params?\b|weights\b|매개\s?변수|파라미터)",
    re.IGNORECASE,
)
_LAYERS: Final = re.compile(r"\s?(?:개의\s)?(?:layers?\b|층(?!번))", re.IGNORECASE)

_RANK: Final = re.compile(r"(?:percentile|백분위)[^\d.]{0,14}$", re.IGNORECASE)
_RANGE: Final = re.compile(r"\s?(?:–|-|~|to|and|에서)\s?")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it stands in a text, at `start` to `end`; `step`: the value of the last digit that counts."""

    said: str
    start: int
    end: int
    value: float
    step: float
    unit: Unit
    about: bool


@dataclass(frozen=True, slots=True)
class Known:
    """The numbers that may be said, by what they are: shares 0..1, ratios, sizes, numbers of layers, and all there are."""

    shares: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    parameters: tuple[float, ...] = ()
    layers: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    others: tuple[float, ...] = ()

    def __add__(self, other: Known) -> Known:
        return Known(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def quantities(text: str) -> Iterator[Quantity]:
    """Yield every number of a text, in digits and in words, in order of kind."""
    found = [_in_digits(match, text) for match in _NUMBER.finditer(text)]
    for at, one in enumerate(found):
        follows = found[at + 1] if at + 1 < len(found) else one
        is_range = one.unit == "none" and follows.unit == "percent" and _RANGE.fullmatch(text[one.end : follows.start])
        is_rank = one.unit == "none" and _RANK.search(text[: one.start])
        yield replace(one, unit="percent") if is_range or is_rank else one
    for match in _IN_WORDS.finditer(text):
        said, about = match[0], bool(match["about"])
        if match["ratio"]:
            value = _RATIOS[match["ratio"].lower()]
            yield Quantity(said, match.start(), match.end(), value, 2 * value * NEARLY, "times", about)
        else:
            unit: Unit = "layers" if _LAYERS.match(text, match.end()) else "none"
            unit = "times" if re.match(r" times\b|-?fold", text[match.end() :]) else unit
            yield Quantity(said, match.start(), match.end(), _WORDS[match["count"].lower()], 0.0, unit, about)


def is_known(found: Quantity, known: Known) -> bool:
    """Return whether a number is one of those known, or one of them rounded to where it ends."""
    if found.unit == "percent":
        return _any(known.shares, found, 100)
    if found.unit == "points":
        return _any(known.points, found, 100)
    if found.unit == "times":
        step = 1.0 if found.about and found.value >= 1 and found.step < 1 and found.value % 1 == 0 else found.step
        return any(abs(one - found.value) <= step / 2 + 1e-9 for one in known.ratios)
    if found.unit == "parameters":
        return _any(known.parameters, found, 1)
    if found.unit == "layers":
        return _any(known.layers, found, 1)
    shares = (*known.shares, *known.points) if found.step < 1 else ()
    among = (*known.others, *known.parameters, *known.layers, *known.ratios, *shares)
    if found.value < 1 and found.step > COARSEST:
        return found.value in among
    return _any(among, found, 1)


def _in_digits(match: re.Match[str], text: str) -> Quantity:
    scale = _SCALES[match["scale"].strip().lower()] if match["scale"] else 1.0
    digits, decimals = match["digits"].replace(",", ""), match["decimals"] or ""
    value = float(f"{digits}.{decimals or 0}") * scale * (-1 if match["sign"] else 1)
    step = scale * 10.0 ** -len(decimals)
    about = bool(match["about"])
    zeros = len(digits) - len(digits.rstrip("0")) if not decimals and digits.strip("0") else 0
    if scale == 1 and zeros and (about or len(digits) - zeros >= 2) and len(digits) > 3:
        step = 10.0**zeros
    return Quantity(match[0].strip(), match.start(), match.end(), value, step, _unit(match, text), about)


def _unit(match: re.Match[str], text: str) -> Unit:
    written = (match["unit"] or "").strip().lower()
    if written in ("%", "percent", "per cent", "퍼센트") or written.endswith("percentile"):
        return "percent"
    if written in ("times", "fold", "-fold", "x", "×", "배"):
        return "times"
    if written:
        return "points"
    if _PARAMETERS.match(text, match.end()):
        return "parameters"
    return "layers" if _LAYERS.match(text, match.end()) else "none"


def _any(known: Iterable[float], found: Quantity, scale: int) -> bool:
    return any(_rounds_to(scale * one, found, scale) for one in known)


def _rounds_to(known: float, found: Quantity, whole: int) -> bool:
    """Return whether a number is another one rounded; what is not quite nothing, or all, is not to be written so."""
    if (found.value in (0, whole) and found.unit == "percent") or (
        found.value in (0, 1) and not float(known).is_integer()
    ):
        return abs(known - found.value) <= NOTHING * whole
    exact = float(known).is_integer() and found.step <= 1
    slack = 0.0 if exact and whole == 1 else found.step / 2
    return abs(known - found.value) <= slack + 1e-9 * max(1.0, abs(known))
