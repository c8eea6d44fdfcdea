"""What of the rankings is pictured: the strongest channels of each layer, their images, and their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.feature_maps.shapes import Shaped
from layerscope.functions.feature_activation.stream import Best, Ranked
from layerscope.schemas.products.feature_activation import ActivationMap, ChannelExamples, LayerChannels, Strongest
from layerscope.schemas.products.sprites import Place

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shown:
    """A layer, what the pass found of it (None where it has no row an image), and the channels that are pictured."""

    layer: Shaped
    ranked: Ranked | None
    channels: tuple[int, ...] = ()

    @property
    def mapped(self) -> tuple[int, ...]:
        """Return the channels of which there is a map: those that are pictured, where they have positions."""
        return self.channels if self.ranked and self.ranked.shape else ()


def strongest_channels(ranked: Ranked, most: int) -> tuple[int, ...]:
    """Return the channels with the largest positive norm on any image, of equals the first; none whose norm is 0."""
    norms = np.nan_to_num(ranked.positive.scores[:, 0])
    order = np.argsort(-norms, kind="stable")[:most]
    return tuple(order[norms[order] > 0].tolist())


def named_images(layers: Sequence[Shown]) -> list[int]:
    """Return the images that the shown channels name, once each, in the order in which they are put on a sheet.

    Those by positive norm come before those by maximum and by raw norm, and of each the first of every channel before
    the second of any.
    """
    named: dict[int, None] = {}
    for ranking in ("positive", "maximum", "raw"):
        tables = [getattr(one.ranked, ranking).indices[list(one.channels)] for one in layers if one.ranked]
        named |= dict.fromkeys(np.concatenate(tables).T.ravel().tolist() if tables else ())
    named.pop(-1, None)
    return list(named)


def arrays(layers: Sequence[Shown], k: int) -> dict[str, NDArray[Any]]:
    """Return the product's arrays (R, k): the channels of all layers, one layer after the other."""
    return {
        "by_positive_norm": _stacked(layers, k, np.int32, lambda one: one.positive.indices),
        "positive_norms": _stacked(layers, k, np.float32, lambda one: one.positive.scores),
        "by_raw_norm": _stacked(layers, k, np.int32, lambda one: one.raw.indices),
        "raw_norms": _stacked(layers, k, np.float32, lambda one: one.raw.scores),
        "by_maximum": _stacked(layers, k, np.int32, lambda one: one.maximum.indices),
        "maxima": _stacked(layers, k, np.float32, lambda one: one.maximum.scores),
        "maximum_at": _stacked(layers, k, np.int32, lambda one: one.places),
    }


def _stacked(layers: Sequence[Shown], k: int, dtype: type, part: Callable[[Ranked], NDArray[Any]]) -> NDArray[Any]:
    nothing = -1 if dtype is np.int32 else np.nan
    found = [
        part(one.ranked) if one.ranked else np.full((one.layer.site.channels, k), nothing, dtype) for one in layers
    ]
    return np.concatenate(found).astype(dtype)


def grey(one: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a map (h, w) as grey from 0, its smallest value, to 255, its largest; all 0 where they are equal."""
    values = one.astype(np.float64)
    spread = values.max() - values.min()
    shades: NDArray[np.uint8] = np.rint((values - values.min()) * (255 / spread if spread else 0)).astype(np.uint8)
    return shades


def layer_channels(shown: Shown, first_row: int, maps: Sequence[Place]) -> LayerChannels:
    """Describe one layer, whose channel 0 is row `first_row`; `maps` are the places of the maps of its channels."""
    site, ranked = shown.layer.site, shown.ranked
    row = LayerChannels(
        name=site.layer,
        call=site.call,
        type=site.type,
        state="ok" if ranked else "unbatched",
        channels=site.channels,
        first_row=first_row,
        shape=shown.layer.shape,
        activation=site.activation,
        activation_layer=site.activation_layer,
        activation_shape=(site.channels, *ranked.shape) if ranked else (),
        through_sum=site.through_sum,
    )
    if ranked is None:
        return row
    places = iter(maps) if shown.mapped else repeat(None)
    never_positive = ranked.maximum.scores[:, 0] <= 0
    return row.model_copy(
        update={
            "dead": _numbers(never_positive) if site.activation else (),
            "constant": _numbers(ranked.constant),
            "non_finite": _numbers(~ranked.finite),
            "strongest": _strongest(ranked.whole_positive),
            "strongest_raw": _strongest(ranked.whole_raw),
            "shown": tuple(_examples(ranked, one, next(places)) for one in shown.channels),
        }
    )


def _numbers(flags: Flags) -> tuple[int, ...]:
    return tuple(np.flatnonzero(flags).tolist())


def _strongest(best: Best) -> Strongest | None:
    index = int(best.indices[0, 0])
    return Strongest(index=index, norm=float(best.scores[0, 0])) if index >= 0 else None


def _examples(ranked: Ranked, channel: int, place: Place | None) -> ChannelExamples:
    one = ranked.maps[channel]
    positive = _images(ranked.positive, channel)
    return ChannelExamples(
        channel=channel,
        positive=positive,
        raw=_images(ranked.raw, channel),
        maximum=_images(ranked.maximum, channel),
        norm=float(ranked.positive.scores[channel, 0]),
        peak=float(ranked.maximum.scores[channel, 0]),
        peak_at=tuple(int(at) for at in np.unravel_index(ranked.places[channel, 0], ranked.shape)),
        map=ActivationMap(image=positive[0], low=float(one.min()), high=float(one.max()), place=place)
        if place
        else None,
    )


def _images(best: Best, channel: int) -> tuple[int, ...]:
    images = best.indices[channel]
    return tuple(images[images >= 0].tolist())
