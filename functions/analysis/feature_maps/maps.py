"""One response of a layer as maps, a map a channel and image, and what is read off each: norm, extremes, place.

Each reduction goes over the response once or twice, in the order in which it lies in memory and in pieces that stay in
a processor's cache: on a CPU that is all the time that a product next to the forward pass has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

_PIECE: Final = {"cpu": 2**17}  # numbers that are copied at a time: half a megabyte, or on a GPU 64
_PIECE_ELSEWHERE: Final = 2**24
_LANES: Final = 64  # a reduction over rows is fast from this width on


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of some images (B), laid out as in memory: values (B, C, P), or (B, P, C) where channels are `last`."""

    values: Tensor
    last: bool

    @classmethod
    def of(cls, response: Tensor) -> Maps:
        """Return the maps of a response (B, C, …), without a copy where it is contiguous or channels last."""
        channels_last = response.ndim == 4 and response.is_contiguous(memory_format=torch.channels_last)
        if channels_last and not response.is_contiguous():
            return cls(response.permute(0, 2, 3, 1).flatten(1, 2), last=True)
        return cls(response.flatten(2), last=False)

    @classmethod
    def of_last(cls, response: Tensor) -> Maps:
        """Return the maps of a response (B, …, C), as a linear layer puts out; without positions, a map of one place."""
        return cls(response.flatten(1, -2) if response.ndim > 2 else response[:, None], last=True)

    @property
    def channels(self) -> int:
        """Return C."""
        return self.values.shape[2 if self.last else 1]

    def norms(self, *, positive: bool = False) -> Tensor:
        """Return the Euclidean norm (B, C) of each map, or of what is positive in it."""
        if not self.last and not positive:
            norms: Tensor = torch.linalg.vector_norm(self.values, dim=2)
            return norms
        places = 1 if self.last else 2
        squares = []
        buffer = torch.empty_like(next(self._pieces()))
        for piece in self._pieces():
            copy = buffer[: len(piece)]
            factor = torch.clamp_min(piece, 0, out=copy) if positive else piece
            squares.append(torch.mul(factor, factor, out=copy).sum(dim=places))
        return torch.cat(squares).sqrt()

    def largest(self) -> Tensor:
        """Return the maximum (B, C) of each map; NaN where one is in it."""
        if not self.last:
            return self.values.amax(dim=2)
        folds = _folded(self.values).amax(dim=1)
        return folds.view(len(folds), -1, self.channels).amax(dim=1)

    def smallest(self) -> Tensor:
        """Return the minimum (C,) of each channel over these images; NaN where one is in it."""
        if not self.last:
            return self.values.amin(dim=2).amin(dim=0)
        return _folded(self.values).amin(dim=1).view(-1, self.channels).amin(dim=0)

    def only(self, channels: Tensor) -> Maps:
        """Return a copy of the maps of these channels (n,)."""
        return Maps(self.values.index_select(2 if self.last else 1, channels), self.last)

    def of_pairs(self, images: Tensor, channels: Tensor) -> Tensor:
        """Return the maps (n, P) of these images and channels (n,)."""
        return self.values[images, :, channels] if self.last else self.values[images, channels]

    def places(self, images: Tensor, channels: Tensor) -> Tensor:
        """Return where (n,) the maximum of each of these maps is, row by row; of equals the first."""
        return self.of_pairs(images, channels).argmax(dim=1)

    def _pieces(self) -> Iterator[Tensor]:
        most = _PIECE.get(self.values.device.type, _PIECE_ELSEWHERE)
        yield from torch.split(self.values, max(1, most // self.values[0].numel()))


def _folded(values: Tensor) -> Tensor:
    """Return values (B, P, C) as (B, P / f, f * C), wide enough to be reduced fast."""
    images, places, channels = values.shape
    fold = 1
    while fold * channels < _LANES and places % (2 * fold) == 0:
        fold *= 2
    return values.view(images, places // fold, fold * channels)


def reduced(maps: Tensor, most: int) -> Tensor:
    """Return maps (n, …) of one, two or three axes as (n, h, w), at most that high and wide, by the maxima of blocks.

    One axis lies flat; of three, the first is reduced to its maximum.
    """
    flat = maps[:, None] if maps.ndim == 2 else maps.amax(dim=1) if maps.ndim == 4 else maps
    block = [-(-size // most) for size in flat.shape[1:]]
    return flat if block == [1, 1] else max_pool2d(flat[:, None], block, ceil_mode=True)[:, 0]
