"""How numbers and names are written in texts about models, so that no reader takes one for another."""

from __future__ import annotations

from typing import Final

from layerscope.schemas.products.description import Language

_PERCENT: Final[dict[Language, str]] = {"en": " %", "ko": "%"}
_POINTS: Final[dict[Language, str]] = {"en": " points", "ko": "%p"}


def percent(share: float, language: Language) -> str:
    """Write a share in per cent to one decimal, or to more where one would tell nothing, or all, of what is not quite."""
    for decimals in range(1, 6):
        written = f"{100 * share:.{decimals}f}"
        if float(written) not in (0.0, 100.0):
            break
    else:
        written = f"{100 * round(share):d}"
    return written + _PERCENT[language]


def points(difference: float, language: Language) -> str:
    """Write how far two shares are apart, in percentage points."""
    return percent(difference, language).removesuffix(_PERCENT[language]) + _POINTS[language]


def similarity(value: float) -> str:
    """Write a similarity, -1..1, to two decimals, or to more likewise."""
    for decimals in range(2, 8):
        written = f"{value:.{decimals}f}"
        if float(written) not in (-1.0, 0.0, 1.0):
            return written
    return f"{round(value):d}"


def quoted(name: str) -> str:
    """Put a name between quotation marks, which no name of the facts holds."""
    return f"‘{name}’"


def layer(name: str, kind: str | None) -> str:
    """Name a layer in English, with its type where that is known."""
    return f"layer {quoted(name)}" + (f" ({quoted(kind)})" if kind else "")


def layer_ko(name: str, kind: str | None) -> str:
    """Name a layer in Korean, with its type where that is known; the noun that particles follow comes last."""
    return f"{quoted(name)}{f'({quoted(kind)})' if kind else ''} 층"


def count(number: int, one: str, many: str) -> str:
    """Write a number with its English noun or verb."""
    return f"{number:,} {one if number == 1 else many}"
