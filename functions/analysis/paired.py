"""Two models on the same images: whether one is right more often than chance explains, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

SUMMED: Final = 20_000
"""Differing images up to which the test is exact; its normal approximation is off by less than 1e-3 beyond."""
LEVEL: Final = 0.05
"""P-value up to which a difference is called more than chance."""
LEAST_TOLD: Final = 0.001
"""Below this a p-value is told by its bound: how far below depends on what no test knows."""
Z_95: Final = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class RightAlone:
    """How many of the same `images` only one of two models, a and b, has right."""

    images: int
    only_a: int
    only_b: int

    @property
    def p_value(self) -> float:
        """Return how often chance alone would part two equally good models so far."""
        return mcnemar(self.only_a, self.only_b)

    @property
    def better(self) -> Literal["a", "b"] | None:
        """Return the more accurate; None: the difference is within chance."""
        if self.p_value > LEVEL:
            return None
        return "b" if self.only_b > self.only_a else "a"


def told(p_value: float) -> str:
    """Write a p-value: "p = 0.65", "p = 0.031", "p < 0.001"."""
    if p_value < LEAST_TOLD:
        return f"p < {LEAST_TOLD}"
    return f"p = {p_value:.{2 if p_value >= 0.1 else 3}f}"


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's test (Psychometrika 12, 1947) on images that only one model has right.

    Where both models are equally good, each such image is a fair coin: exact, as a sum of binomial coefficients; beyond
    `SUMMED` of them by the normal distribution, with the continuity correction of Edwards (Psychometrika 13, 1948).
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    if n > SUMMED:
        return math.erfc((abs(only_a - only_b) - 1) / math.sqrt(2 * n))
    term = tail = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, _ratio(2 * tail, n))


def _ratio(above: int, bits: int) -> float:
    """Return above / 2**bits, of integers that are no floats."""
    spare = max(above.bit_length() - 1000, 0)
    return math.ldexp(float(above >> spare), spare - bits)


def difference(only_a: int, only_b: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of the second model's accuracy minus the first's, -1..1.

    Wald's interval for matched pairs after half an image is added to each of the four counts (Agresti & Min, Statistics
    in Medicine 24, 2005), which keeps its promise for few images as well.
    """
    n, a, b = images + 2, only_a + 0.5, only_b + 0.5
    middle = (b - a) / n
    reach = Z_95 * math.sqrt(max(a + b - (b - a) ** 2 / n, 0)) / n
    return max(middle - reach, -1.0), min(middle + reach, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values as they are worth when so many were looked at (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        least = max(least, min(1.0, p_values[k] * (len(p_values) - rank)))
        adjusted[k] = least
    return adjusted
