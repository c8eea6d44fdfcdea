"""The likeness of two models judged: its rank among the untrained networks of the stored architectures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from layerscope.functions.query.alignment import Scores, likeness, totals
from layerscope.functions.query.reference_population import Layers
from layerscope.schemas.products.layer_vectors import Metric

FEWEST: Final = 10
"""Networks below which a rank among them is not given."""


def networks_likeness(mine: Scores, metric: Metric, untrained: Iterable[Layers], least: float) -> list[float]:
    """Return the score that each untrained network has with the layers `mine` (n, d), in ascending order."""
    scores = []
    for one in untrained:
        if one.networks is None:
            continue
        rows = one.vectors(metric)
        comparable = rows.any(axis=1)
        for network in np.unique(one.networks):
            chosen = rows[comparable & (one.networks == network)].astype(np.float64)
            if len(chosen):
                total = totals((mine @ chosen.T)[None], least)[0]
                scores.append(likeness(float(total), len(mine), len(chosen)))
    return sorted(scores)


def percentile(score: float, among: Sequence[float]) -> float | None:
    """Return the share of scores that are lower, ties half; None where there are fewer than FEWEST."""
    if len(among) < FEWEST:
        return None
    scores = np.asarray(among)
    equal = np.abs(scores - score) < 1e-9
    return float(((scores < score) & ~equal).mean() + equal.mean() / 2)
