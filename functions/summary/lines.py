"""Lines of generated source that are too long, broken inside their longest brackets, where Python allows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

INDENT: Final = "    "
WIDTH: Final = 104
MOST: Final = 0.6
"""Share of the longest pair of brackets that one inside it must hold to be broken instead."""
_STRING: Final = r"\"[^\"]*\"|'[^']*'"
_BRACKETS: Final = re.compile(rf"{_STRING}|[(\[{{]|[)\]}}]")
_WORDS: Final = re.compile(rf"(?:{_STRING}|[^\s\"'])+")


def broken(line: str) -> list[str]:
    """Return a line as it is if it is short, else what stands in brackets on lines of its own."""
    pairs = [] if len(line) <= WIDTH or line.lstrip().startswith("#") else list(_pairs(line))
    if not pairs:
        return [line]
    longest = max(end - begin for begin, end in pairs)
    begin, end = min((pair for pair in pairs if pair[1] - pair[0] >= MOST * longest), key=lambda one: one[1] - one[0])
    indent = line[: len(line) - len(line.lstrip())]
    return [line[:begin], *_filled(line[begin:end], indent + INDENT), indent + line[end:]]


def _pairs(line: str) -> Iterator[tuple[int, int]]:
    """Yield where the content of each pair of brackets begins and ends."""
    opened: list[int] = []
    for found in _BRACKETS.finditer(line):
        if found[0] in "([{":
            opened.append(found.end())
        elif found[0] in ")]}" and opened:
            yield opened.pop(), found.start()


def _filled(text: str, indent: str) -> Iterator[str]:
    line = ""
    for word in _WORDS.findall(text):
        if line and len(indent) + len(line) + 1 + len(word) > WIDTH:
            yield indent + line
            line = ""
        line = f"{line} {word}" if line else word
    yield indent + line
