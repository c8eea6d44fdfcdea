"""One pass over the images: every response is reduced as soon as it is there, and what stays is k images a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscope.functions.analysis.feature_maps.maps import Maps, reduced
from layerscope.functions.analysis.feature_maps.sites import NONNEGATIVE, Site, plain_name
from layerscope.functions.analysis.inference import Classifier, Images, inference
from layerscope.functions.feature_activation.ranking import Ranking, finite
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_module import tapped
from layerscope.schemas.products.feature_activation import FeatureActivation

Indices = NDArray[np.int32]
Scores = NDArray[np.float32]
Name = tuple[str, int]

_PIXELS: Final = 2**19
_MAP: Final = FeatureActivation.declared.parameters["map"]
_ROUNDING: Final = 1e-6  # of float32, where sums are made in another order


@dataclass(frozen=True, slots=True)
class Best:
    """The best images (C, k) of each channel and their scores; -1 and NaN where there are fewer."""

    indices: Indices
    scores: Scores

    def rows(self, channels: slice) -> Best:
        """Return that of some channels."""
        return Best(self.indices[channels], self.scores[channels])


@dataclass(frozen=True, slots=True)
class Ranked:
    """What one pass finds of a site: three rankings, and figures (C,) over all images and places.

    `places` (C, k) says where the scores of `maximum` are, row by row in a map of `shape`; `maps` (C, h, w) are those of
    the first images of `positive`, reduced to `_MAP` pixels. Where `shape` has no axes, channels have no
    positions, and nothing to show as a map. The rankings of the whole layer have one row.
    """

    raw: Best
    positive: Best
    maximum: Best
    places: Indices
    shape: tuple[int, ...]
    maps: Scores
    constant: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    whole_raw: Best
    whole_positive: Best


def rank(
    classifier: Classifier, model: SafeModel, sites: Sequence[Site], images: Images, k: int, batch: int
) -> list[Ranked]:
    """Run all images (N, H, W, C) through the model once, in batches, and return what each site responds to most."""
    stream = _Stream(sites, k, classifier.device)
    bounds = np.linspace(0, len(images), -(-len(images) // batch) + 1).astype(int)
    with inference(), tapped(model, stream.taps):
        for start, stop in pairwise(bounds.tolist()):
            stream.begin(start)
            classifier(images[start:stop])
            stream.end()
    return stream.ranked(sites)


def batch_size(images: Images) -> int:
    """Return how many images go through at once: enough to be fast, and few enough for the responses of large ones."""
    height, width = images.shape[1:3]
    return int(min(320, max(16, _PIXELS // (height * width))))


class _Stream:
    """The state of the pass: k images and a few numbers a channel. Sites may share an activation, ranked once.

    All rankings are rows of one: for each layer the raw norms of its channels, for each activation the positive
    norms and the maxima, and a row for each of the norms taken over all channels together.
    """

    def __init__(self, sites: Sequence[Site], k: int, device: str) -> None:
        self._raw = {site.node: site for site in sites}
        self._behind = {site.behind: site for site in sites}
        behind = {node: site.channels for node, site in self._behind.items()}
        rows: dict[Name, int] = {("raw", node): site.channels for node, site in self._raw.items()}
        rows |= {("positive", node): count for node, count in behind.items()}
        self._norms = list(rows)
        rows |= {("maximum", node): count for node, count in behind.items()}
        rows |= {(f"whole {kind}", node): 1 for kind, node in self._norms}
        bounds = np.cumsum([0, *rows.values()]).tolist()
        self._rows = {name: slice(*ends) for name, ends in zip(rows, pairwise(bounds), strict=True)}
        self._ranking = Ranking(bounds[-1], k, device)
        self._worst = self._ranking.worst()
        self._places = {node: torch.full((count, k), -1, device=device) for node, count in behind.items()}
        self._finite = torch.ones(bounds[-1], dtype=torch.bool, device=device)
        self._spreads = {node: _Spread(count, device) for node, count in behind.items()}
        self._pictures = {node: _Pictures(count, device) for node, count in behind.items()}
        self._first = 0
        self._batch: dict[Name, Tensor] = {}

    @property
    def taps(self) -> dict[int, Callable[[Tensor], None]]:
        """Return what is done with the value of each node."""
        return {node: self._tap(node) for node in {*self._raw, *self._behind}}

    def begin(self, first: int) -> None:
        """Expect the images from `first` on."""
        self._first = first

    def end(self) -> None:
        """Rank the images of one batch by what its responses were reduced to."""
        for kind, node in self._norms:
            self._batch[f"whole {kind}", node] = torch.linalg.vector_norm(self._batch[kind, node], dim=1, keepdim=True)
        scores = torch.cat([self._batch[name] for name in self._rows], dim=1)
        kept = self._ranking.add(scores, self._first)
        self._worst = self._ranking.worst()
        self._finite &= finite(scores).all(dim=0)
        for node, places in self._places.items():
            both = torch.cat([places, self._batch["places", node].T], dim=1)
            self._places[node] = both.gather(1, kept[self._rows["maximum", node]])
        self._batch.clear()

    def _tap(self, node: int) -> Callable[[Tensor], None]:
        site = self._raw.get(node) or self._behind[node]

        def reduce(response: Tensor) -> None:
            maps = Maps.of(response) if site.is_convolution else Maps.of_last(response)
            if node in self._raw:
                self._batch["raw", node] = maps.norms()
            if node in self._behind:
                self._reduce_behind(node, maps, site.positions(response.shape))

        return reduce

    def _reduce_behind(self, node: int, maps: Maps, shape: tuple[int, ...]) -> None:
        site = self._behind[node]
        nonnegative = site.activation is not None and plain_name(site.activation) in NONNEGATIVE
        norms = self._batch["positive", node] = maps.norms(positive=not nonnegative)
        largest = self._batch["maximum", node] = maps.largest()
        self._batch["places", node] = self._placed(maps, largest, self._worst[self._rows["maximum", node]])
        self._pictures[node].add(maps, norms, shape)
        self._spreads[node].add(maps, largest)

    def _placed(self, maps: Maps, largest: Tensor, worst: Tensor) -> Tensor:
        """Return the places (B, C) of the maxima that may get into the ranking; -1 for the others."""
        k = self._ranking.keys.shape[1]
        if self._first == 0 and len(largest) > k:
            enters = largest >= largest.where(finite(largest), -torch.inf).topk(k, dim=0).values[-1]
        else:
            enters = largest > worst
        images, channels = enters.nonzero(as_tuple=True)
        places = torch.full_like(largest, -1, dtype=torch.int64)
        places[images, channels] = maps.places(images, channels)
        return places

    def ranked(self, sites: Sequence[Site]) -> list[Ranked]:
        """Return what is known of each site when all images were there."""
        every = Best(self._ranking.indices(), self._ranking.scores())
        finite_rows = self._finite.cpu().numpy()
        best = {name: every.rows(rows) for name, rows in self._rows.items()}
        found = []
        for site in sites:
            raw, positive = ("raw", site.node), ("positive", site.behind)
            maximum, pictures = best["maximum", site.behind], self._pictures[site.behind]
            all_finite = finite_rows[self._rows[raw]] & finite_rows[self._rows[positive]]
            found.append(
                Ranked(
                    raw=best[raw],
                    positive=best[positive],
                    maximum=maximum,
                    places=np.where(maximum.indices >= 0, self._places[site.behind].cpu().numpy(), -1).astype(np.int32),
                    shape=pictures.shape,
                    maps=pictures.maps.cpu().numpy(),
                    constant=~self._spreads[site.behind].varies.cpu().numpy() & all_finite,
                    finite=all_finite,
                    whole_raw=best["whole raw", site.node],
                    whole_positive=best["whole positive", site.behind],
                )
            )
        return found


class _Pictures:
    """The map (C, h, w) that each channel makes of the image with its largest norm so far."""

    def __init__(self, channels: int, device: str) -> None:
        self.shape: tuple[int, ...] = ()
        self._begun = False
        self.maps = torch.zeros(channels, 1, 1, device=device)
        self._norms = torch.full((channels,), -torch.inf, device=device)

    def add(self, maps: Maps, norms: Tensor, shape: tuple[int, ...]) -> None:
        """Take in the maps of some images, their norms (B, C), and the shape of one; without positions, nothing."""
        largest, images = norms.where(finite(norms), -torch.inf).max(dim=0)
        channels = (largest > self._norms).nonzero()[:, 0]
        found = reduced(maps.of_pairs(images[channels], channels).view(len(channels), *(shape or (1,))), _MAP)
        if not self._begun:
            self._begun, self.shape = True, shape
            self.maps = found.new_zeros(len(norms[0]), *found.shape[1:])
        self.maps[channels] = found
        self._norms = torch.maximum(self._norms, largest)


class _Spread:
    """Which channels (C,) are not the same number everywhere; those that are known to vary are not looked at again."""

    def __init__(self, channels: int, device: str) -> None:
        self.varies = torch.zeros(channels, dtype=torch.bool, device=device)
        self._low = torch.full((channels,), torch.inf, device=device)
        self._high = torch.full((channels,), -torch.inf, device=device)

    def add(self, maps: Maps, largest: Tensor) -> None:
        """Take in the maps of some images, and the maximum (B, C) of each."""
        unknown = (~self.varies).nonzero()[:, 0]
        if not len(unknown):
            return
        seen = maps if len(unknown) == maps.channels else maps.only(unknown)
        self._high = torch.maximum(self._high, largest.amax(dim=0))
        self._low[unknown] = torch.minimum(self._low[unknown], seen.smallest())
        size = torch.maximum(self._high.abs(), self._low.abs())
        self.varies |= ~(self._high - self._low <= _ROUNDING * size)  # a NaN varies
