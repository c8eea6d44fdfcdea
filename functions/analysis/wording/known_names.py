"""Names in a text about two models: what looks like one and is none, and a text without those that it may have. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from layerscope.functions.analysis.wording.ground import Ground

_QUOTED: Final = re.compile(r"[‘“]([^‘’“”\n]{1,60})[’”]|\"([^\"\n]{1,60})\"|(?<![\w])'([^'\n]{1,60})'(?!\w)")
_IDENTIFIER: Final = re.compile(r"(?<![\w./-])(?:[A-Za-z_]\w*(?:\.\w+)+|[a-z]+_?\d+|[A-Za-z]+_\w+)(?![\w/])")
_MODULE: Final = re.compile(
    r"\b(?:(?:Conv|BatchNorm|MaxPool|AvgPool|AdaptiveAvgPool|Dropout|InstanceNorm|ConvTranspose)[123]d|LayerNorm|GroupNorm"
    r"|MultiheadAttention|LSTM|GRU|Embedding|Re?LU6?|GELU|Sigmoid|Tanh|Softmax|Flatten|Dropout)(?![A-Za-z0-9_])"
)
_FAMILY: Final = re.compile(
    r"\b(?:Res|Le|Alex|Dense|Mobile|Efficient|Squeeze|Shuffle|Google|ConvNe|Wide-?Res)(?:Net|Xt)\b|\bVGG"
    r"|\bInception|\bU-Net|\bViT\b|\bSwin|\bTransformer",
    re.IGNORECASE,
)


def unknown_names(sentence: str, ground: Ground, *, may_add: bool) -> Iterator[str]:
    """Yield what looks like a name and is none; advice may name what it would add."""
    known = {one.lower() for one in ground.names}
    for match in _QUOTED.finditer(sentence):
        name = next(one for one in match.groups() if one).strip()
        if name.lower() not in known and not _is_words(name) and not (may_add and _MODULE.fullmatch(name)):
            yield name
    plain = _QUOTED.sub(" ", without(sentence, ground.names))
    for match in _IDENTIFIER.finditer(plain):
        if match[0].lower() not in (*known, "i.e", "e.g") and not may_add:
            yield match[0]
    if not may_add:
        types = {one.lower() for one in ground.names}
        yield from (match[0] for match in _MODULE.finditer(plain) if match[0].lower() not in types)
        yield from (match[0] for match in _FAMILY.finditer(plain) if not any(match[0].lower() in one for one in known))


def _is_words(quoted: str) -> bool:
    """Return whether what is quoted is plain words, such as a figure of speech, rather than a name."""
    return bool(re.fullmatch(r"[a-z]+(?: [a-z]+)+|[가-힣]+(?: [가-힣]+)*", quoted))


def without(sentence: str, names: Sequence[str], *, bare: bool = False) -> str:
    """Return a sentence with its names blanked, so that what is left keeps its place.

    A name that is a number is one where it is quoted or follows the word layer; `bare`: anywhere.
    """
    for name in names:
        around = (
            (r"(?<![A-Za-z0-9_.])", r"(?![A-Za-z0-9_]|\.\d)")
            if bare or not name.isdigit()
            else (r"(?<=[‘“\"'])", r"(?=[’”\"'])")
        )
        sentence = re.sub(f"{around[0]}{re.escape(name)}{around[1]}", blank, sentence)
    known = "|".join(name for name in names if name.isdigit())
    return re.sub(rf"\b(?:layer|층) (?:{known})\b|\b(?:{known})번 층", blank, sentence) if known else sentence


def blank(match: re.Match[str]) -> str:
    """Return as many spaces as a match has characters."""
    return " " * len(match[0])
