"""The form of one section of a comparison: its length, its language, and nothing in it but words. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Final

from layerscope.schemas.products.description import Language

SHORTEST: Final = 6
LONGEST: Final = 1_500
WORDS_OF_A_SENTENCE: Final = 3
KOREAN: Final = 0.3
"""Share of its letters that a Korean text has to have in Hangul; the rest are names and types."""

_MARKUP: Final = re.compile(r"[>{}\\@]|<(?! ?\d)|://|www\.", re.IGNORECASE)
"""No name of an element begins with a digit, and p-values are told as "p < 0.001"."""


def fault_of_form(text: str, language: Language, names: Collection[str]) -> str | None:
    """Return what is wrong with the form of a plain text, in words; None: nothing is."""
    if len(text) < SHORTEST:
        return "there is no text"
    if len(text) > LONGEST:
        return f"it has more than {LONGEST:,} characters"
    bare = text
    for name in sorted(names, key=len, reverse=True):
        bare = bare.replace(name, "")
    if _MARKUP.search(bare) or any(unicodedata.category(one)[0] == "C" for one in text if one != "\n"):
        return "markup, a link or a control character"
    if not _is_in(bare, language):
        return "it is in another language"
    sentences = [one for one in names if len(one.split()) >= WORDS_OF_A_SENTENCE]
    unquoted = re.sub("[‘“\"'][^’”\"'\n]*[’”\"']", "", text).lower()
    return (
        "a name is told as words of its own" if any(one.strip("…").lower() in unquoted for one in sentences) else None
    )


def _is_in(text: str, language: Language) -> bool:
    letters = [one for one in text if one.isalpha()]
    korean = sum(unicodedata.name(one, "").startswith("HANGUL") for one in letters)
    latin = sum(one.isascii() for one in letters)
    others = sum(not unicodedata.name(one, "").startswith(("HANGUL", "GREEK")) and not one.isascii() for one in letters)
    if others:
        return False
    return latin > 0 == korean if language == "en" else korean >= KOREAN * max(1, len(letters))
