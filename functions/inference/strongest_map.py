"""The feature map that a picture makes respond most, relative to the most that any test image made it respond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from layerscope.functions.analysis.feature_maps.maps import Maps, reduced
from layerscope.functions.analysis.feature_maps.shapes import Shaped
from layerscope.functions.analysis.feature_maps.sites import NONNEGATIVE, Site, plain_name
from layerscope.functions.inference.call import Ranked, RankedLayer, Strongest
from layerscope.schemas.products.feature_activation import FeatureActivation

_MAP = FeatureActivation.declared.parameters["map"]


class Responses:
    """The strongest channel of each layer, as the forward pass comes to it; only its map is kept."""

    def __init__(self, layers: Sequence[Shaped], ranked: Ranked | None) -> None:
        self._ranked = ranked
        rows = {(one.name, one.call): one for one in (ranked.layers if ranked else ())}
        self._sites: dict[int, list[tuple[Site, RankedLayer]]] = {}
        for one in layers:
            row = rows.get((one.site.layer, one.site.call))
            if one.batched and row is not None and row.channels == one.site.channels:
                self._sites.setdefault(one.site.behind, []).append((one.site, row))
        self.best: Strongest | None = None

    @property
    def taps(self) -> Mapping[int, Callable[[Tensor], None]]:
        """Return what is done with the value of each node."""
        return {node: self._tap(found) for node, found in self._sites.items()}

    def _tap(self, found: Sequence[tuple[Site, RankedLayer]]) -> Callable[[Tensor], None]:
        def look(response: Tensor) -> None:
            for site, row in found:
                self._look(response, site, row)

        return look

    def _look(self, response: Tensor, site: Site, row: RankedLayer) -> None:
        assert self._ranked is not None
        nonnegative = site.activation is not None and plain_name(site.activation) in NONNEGATIVE
        maps = Maps.of(response)
        norms = maps.norms(positive=not nonnegative)[0].cpu().numpy()
        strongest = self._ranked.norms[row.first_row : row.first_row + row.channels]
        counts = np.isfinite(norms) & np.isfinite(strongest) & (strongest > 0)
        counts[list(row.leaves_out)] = False
        if not counts.any():
            return
        ratios = np.where(counts, norms / np.where(counts, strongest, 1), -1)
        channel = int(ratios.argmax())
        if self.best is None or ratios[channel] > self.best.norm / self.best.strongest:
            one = response[:1, channel]
            picture = reduced(one, _MAP)[0].float().cpu().numpy()
            figures = float(norms[channel]), float(strongest[channel])
            self.best = Strongest(site.layer, site.call, channel, *figures, picture)
