"""Whether answers agree with labels more than by chance: from how often each class is there and is answered, alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

CONSTANT: Final = 0.99
"""So large a share of equal answers is one answer for all images."""
ONE_CLASS: Final = 0.95
"""Where so large a share of the images is of one class, one answer may be the right one."""
AGREEMENT: Final = 3.09
"""Standard deviations above chance: 1 in 1,000 unrelated models exceeds it (normal)."""
REACH: Final = 0.15
"""An accuracy may be so far above chance within its 95 % interval, and no more, to be called one at chance."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often answers that know nothing of the labels would be right, and how the model's compare."""

    chance: float
    deviation: float
    constant: int | None
    at_chance: bool

    @property
    def means_something(self) -> bool:
        """Return whether there is anything in the answers to speak of."""
        return self.constant is None and not self.at_chance


def agreement(support: Sequence[int], answered: Sequence[int], correct: int, accuracy_high: float) -> Agreement:
    """Hold answers against labels: images a class (C,), answers a class (C,), and how many of them are right.

    Chance is the mean over all ways to deal the same answers to the images, and `deviation` the standard deviation of the
    share of right ones then: exact for the number of matches of two shuffled decks (Vatutin & Mikhailov 1982, as sums of
    hypergeometric counts). `constant` is the class that all images are answered as.
    """
    a, b = np.asarray(support, np.float64), np.asarray(answered, np.float64)
    n = float(a.sum())
    matches = a * b
    chance = float(matches.sum()) / n**2
    variance = 0.0
    if n > 1:
        own = float((matches * (n - a) * (n - b)).sum())
        between = float(matches.sum()) ** 2 - float((matches**2).sum())
        variance = (own + between) / (n**2 * (n - 1))
    deviation = math.sqrt(max(variance, 0.0)) / n
    most = int(np.argmax(b))
    constant = most if len(a) > 1 and b[most] >= CONSTANT * n and float(a.max()) < ONE_CLASS * n else None
    close = correct / n <= chance + AGREEMENT * deviation
    at_chance = len(a) > 1 and float(a.max()) < ONE_CLASS * n and close and accuracy_high <= chance + REACH
    return Agreement(chance, deviation, constant, at_chance)
