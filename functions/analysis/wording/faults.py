"""What a text by a language model has to be before it is shown: short, plain, in its language, without other numbers.

A numeral is allowed if it is one of the facts' numbers, or such a number rounded to as many digits as it has: as it is,
or, of a share, in per cent. What is quoted and is a name of the facts does not count. Whether a number is said of the
right thing is beyond this; that it was not made up is not. A text that tells nothing of what it was to tell, or a name
that is a sentence as if it were its own, obeys a name instead of us.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

from layerscope.schemas.products.description import Language

Fault = Literal["empty", "too-long", "markup", "wrong-language", "made-up-number", "off-the-point", "name-as-text"]

NOTHING: Final = 1e-7
"""What a share may differ from 0 or 1 by and still be written as such: less than one image in any test part."""
SHORTEST: Final = 20
LONGEST: Final[Mapping[Language, int]] = {"en": 900, "ko": 600}
WORDS_OF_A_SENTENCE: Final = 3

_MARKUP = re.compile(r"[<>\[\]{}|*_#`\\@]|://|www\.|[A-Za-z]{2,}\.[A-Za-z]{2,}", re.IGNORECASE)
_NUMBER = re.compile(r"(?P<sign>(?<![\w%)])[-−+])?(?P<digits>\d[\d.,]*)(?P<percent>\s?(?:%|percent|per cent|퍼센트))?")
_FORM = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<decimals>\d+))?")
_SCALED = re.compile(r"\s?(?:million|billion|thousand|times|-?fold|[백천만억조배])")
_IN_WORDS = re.compile(
    r"\b(?:zero|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
    r"|hundred|thousand|million|billion|dozen|half|thirds?|quarters?|twice|double|triple|percent)s?\b"
    r"|[영일이삼사오육칠팔구십백천만]+\s?(?:퍼센트|프로(?![가-힣])|%)|절반|[두세네]\s?배"
    r"|(?<![가-힣])(?:세|네|다섯|여섯|일곱|여덟|아홉|열)\s?(?:개|장|층|가지)",
    re.IGNORECASE,
)


def fault(
    text: str, language: Language, facts: Mapping[str, Any], names: Collection[str], required: Collection[float]
) -> Fault | None:
    """Return what is wrong with a text about these facts; None: it may be shown.

    Args:
        text: as the language model gave it.
        language: the one that it was asked for in.
        facts: JSON data; every number of the text is one of its numbers.
        names: what may stand between quotation marks.
        required: the numbers that it has to state.
    """
    if len(text.strip()) < SHORTEST:
        return "empty"
    if len(text) > LONGEST[language]:
        return "too-long"
    plain = without_names(text, names)
    if _MARKUP.search(plain) or any(unicodedata.category(one)[0] == "C" for one in text):
        return "markup"
    if not _is_in(plain, language):
        return "wrong-language"
    return _fault_of_content(plain, list(numbers_in(facts)), names, required)


def _fault_of_content(
    plain: str, numbers: list[float], names: Collection[str], required: Collection[float]
) -> Fault | None:
    if not _numbers_are_from(plain, numbers):
        return "made-up-number"
    found = list(_NUMBER.finditer(plain))
    if not all(any(_is_known(one, plain, [number]) for one in found) for number in required):
        return "off-the-point"
    sentences = [one for one in names if len(one.split()) >= WORDS_OF_A_SENTENCE]
    return "name-as-text" if any(one.strip("…").lower() in plain.lower() for one in sentences) else None


def without_names(text: str, names: Collection[str]) -> str:
    """Return a text without those names in it that stand between quotation marks."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(f"[‘“\"']{re.escape(name)}[’”\"']", "‘’", text)
    return text


def numbers_in(facts: Any) -> Iterator[float]:
    """Yield every number in JSON data."""
    if isinstance(facts, Mapping):
        facts = list(facts.values())
    if isinstance(facts, list | tuple):
        for one in facts:
            yield from numbers_in(one)
    elif isinstance(facts, int | float) and not isinstance(facts, bool):
        yield facts


def _is_in(plain: str, language: Language) -> bool:
    letters = [one for one in plain if one.isalpha()]
    korean = sum(unicodedata.name(one, "").startswith("HANGUL") for one in letters)
    latin = sum(one.isascii() for one in letters)
    if korean + latin < len(letters):
        return False
    return latin > 0 == korean if language == "en" else korean > latin


def _numbers_are_from(plain: str, known: list[float]) -> bool:
    if any(unicodedata.numeric(one, None) is not None and not one.isascii() for one in plain):
        return False  # digits of other scripts, fractions, numbers in circles
    if _IN_WORDS.search(_NUMBER.sub("0", plain)):
        return False
    return all(_is_known(one, plain, known) for one in _NUMBER.finditer(plain))


def _is_known(match: re.Match[str], plain: str, known: list[float]) -> bool:
    digits = match["digits"].rstrip(".,")
    form = _FORM.fullmatch(digits)
    end = match.start("digits") + len(digits)
    before, after = plain[match.start() - 1 : match.start()], plain[end : end + 1]
    adjacent = {one for one in (before, after) if one.isascii() and one.isalpha()}
    if form is None or adjacent or _SCALED.match(plain, match.end()):
        return False
    value = float(digits.replace(",", "")) * (-1 if match["sign"] in ("-", "−") else 1)
    decimals = len(form["decimals"] or "")
    shares = [100 * one for one in known if abs(one) <= 1 and isinstance(one, float)]
    if any(_rounds_to(one, value, decimals, whole=100) for one in shares):
        return True
    return match["percent"] is None and any(
        _rounds_to(one, value, decimals, whole=1) and (abs(one) > 1 or decimals > 1 or one == value) for one in known
    )


def _rounds_to(known: float, written: float, decimals: int, whole: int) -> bool:
    """Return whether `written` is a number rounded; what is not quite nothing, or all, is not to be written as if it were."""
    if isinstance(known, int):
        return known == written
    if written in (0, whole, -whole) and whole >= abs(known):
        return abs(known - written) <= NOTHING * whole
    return abs(known - written) <= float(0.5 * 10**-decimals + 1e-9 * max(1.0, abs(known)))
