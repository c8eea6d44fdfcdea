"""The answer of a language model as plain sentences: whatever markup it likes to write, only its words are shown. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_BULLET: Final = re.compile(r"^\s*(?:[-*+•–▪]|\d{1,2}[.)])\s+")
_HEADING: Final = re.compile(r"^\s*#{1,6}\s+.*$")
_RULE: Final = re.compile(r"^\s*(?:[-*_=]\s*){3,}$|^\s*\|?(?:\s*:?-{2,}:?\s*\|)+\s*:?-*:?\s*$")
_STRESS: Final = re.compile(r"\*{1,3}|__|~~")
_TICKS: Final = re.compile(r"`{1,3}([^`\n]+)`{1,3}")
_END: Final = re.compile(r"(?<=[.!?。])[\"'”’)]*\s+(?=[^\s])")
_ABBREVIATION: Final = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|approx|ca|Fig|No)|약)\.$", re.IGNORECASE)


def plain(answer: str) -> str:
    """Return an answer without Markdown: one paragraph a line, list items as sentences, code as quoted names."""
    lines = []
    for line in unicodedata.normalize("NFC", answer).replace("\r", "").split("\n"):
        if _HEADING.match(line) or _RULE.match(line) or line.strip().startswith("```"):
            continue
        text = _BULLET.sub("", line)
        text = ", ".join(one.strip() for one in text.strip().strip("|").split("|")) if "|" in text else text
        text = _STRESS.sub("", _TICKS.sub(r"‘\1’", text)).strip()
        if text:
            lines.append(text)
    return "\n".join(lines)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a plain text; the dots of numbers, of names and of abbreviations end none."""
    for line in text.split("\n"):
        begun = ""
        for piece in _END.split(line):
            begun = f"{begun} {piece}".strip()
            if not _ABBREVIATION.search(begun):
                yield begun
                begun = ""
        if begun:
            yield begun
