"""The k best images of each of many rows, kept while the scores of more images come in.

A score and its image make one integer: the score's bits, put in an order that integers have, before the index counted
backwards. No two are equal, so what the largest k are depends on nothing but the scores, and of equal scores the lower
index wins, however the images come in batches.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NOTHING: Final = -(2**31)  # below every score: as bits of a float it would be a NaN
_LAST: Final = 2**31 - 1
_SHIFT: Final = 32


def finite(numbers: Tensor) -> Tensor:
    """Tell which numbers are neither NaN nor infinite, many times faster than `isfinite` does on a CPU."""
    return numbers - numbers == 0


def keys(scores: Tensor, first: int) -> Tensor:
    """Return float32 scores (B, rows) of the images from `first` on as integers (rows, B)."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes one of the two zeros
    ordered = (bits ^ ((bits >> 31) & _LAST)).masked_fill_(~finite(scores), _NOTHING)
    index = torch.arange(_LAST - first, _LAST - first - len(scores), -1, device=scores.device)
    return (ordered.T.long() << _SHIFT) | index


class Ranking:
    """The `k` best images of each row so far, best first, on the device of the scores."""

    def __init__(self, rows: int, k: int, device: str) -> None:
        self.keys = torch.full((rows, k), _NOTHING << _SHIFT, device=device)

    def add(self, scores: Tensor, first: int) -> Tensor:
        """Take in the scores (B, rows) of the images from `first` on.

        Returns:
            Which of the k that were there, and then of the B that came, are the k now: (rows, k).
        """
        self.keys, kept = torch.cat([self.keys, keys(scores, first)], dim=1).topk(self.keys.shape[1])
        return kept

    def worst(self) -> Tensor:
        """Return the score (rows,) that a later image has to exceed; -infinity where fewer than k are kept."""
        return _scores(self.keys[:, -1], -torch.inf)

    def indices(self) -> NDArray[np.int32]:
        """Return the images (rows, k), best first; -1 where there are fewer."""
        index = (_LAST - (self.keys & 0xFFFF_FFFF)).where(_filled(self.keys), -1)
        found: NDArray[np.int32] = index.to(torch.int32).cpu().numpy()
        return found

    def scores(self) -> NDArray[np.float32]:
        """Return the scores (rows, k) of the same; NaN where there are fewer."""
        found: NDArray[np.float32] = _scores(self.keys, torch.nan).cpu().numpy()
        return found


def _filled(found: Tensor) -> Tensor:
    return found >> _SHIFT != _NOTHING


def _scores(found: Tensor, nothing: float) -> Tensor:
    """Return the scores that went into keys."""
    ordered = found >> _SHIFT
    bits = (ordered ^ ((ordered >> 31) & _LAST)).to(torch.int32)
    return bits.view(torch.float32).where(_filled(found), nothing)
