"""Lines of generated source that are too long, broken inside their longest brackets, where Python allows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

INDENT: Final = "    "
WIDTH: Final = 104
_STRING: Final = r"\"[^\"]*\"|'[^']*'"
_BRACKETS: Final = re.compile(rf"{_STRING}|[(\[{{]|[)\]}}]")
_WORDS: Final = re.compile(rf"(?:{_STRING}|[^\s\"'])+")


def broken(line: str) -> list[str]:
    """Return a line as it is if it is short, else what stands in its longest brackets on lines of its own."""
    begin, end = max(_pairs(line), key=lambda pair: pair[1] - pair[0], default=(0, 0))
    if len(line) <= WIDTH or not end:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return [line[:begin], *_filled(line[begin:end], indent + INDENT), indent + line[end:]]


def _pairs(line: str) -> Iterator[tuple[int, int]]:
    """Yield where the content of each outermost pair of brackets begins and ends."""
    if len(line) <= WIDTH or line.lstrip().startswith("#"):
        return
    opened: list[int] = []
    for found in _BRACKETS.finditer(line):
        if found[0] in "([{":
            opened.append(found.end())
        elif found[0] in ")]}" and opened:
            begin = opened.pop()
            if not opened:
                yield begin, found.start()


def _filled(text: str, indent: str) -> Iterator[str]:
    line = ""
    for word in _WORDS.findall(text):
        if line and len(indent) + len(line) + 1 + len(word) > WIDTH:
            yield indent + line
            line = ""
        line = f"{line} {word}" if line else word
    yield indent + line
