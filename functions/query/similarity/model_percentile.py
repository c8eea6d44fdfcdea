"""The likeness of two models judged: its rank among untrained networks of one architecture, and among stored models. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from layerscope.functions.query.similarity.alignment import Scores, likeness, totals
from layerscope.functions.query.similarity.reference_population import Layers
from layerscope.functions.query.similarity.untrained_networks import FEWEST, of_architecture, rank
from layerscope.schemas.products.layer_vectors import Metric

FEWEST_STORED: Final = 10
"""Models below which a rank among them is not given."""


def among_untrained(
    mine: Scores, hit: Layers, metric: Metric, untrained: Sequence[Layers], least: float
) -> tuple[float | None, int]:
    """Return which share of a model and R untrained networks like it is less like the layers `mine` (n, d); and R.

    Of a deep architecture some layers of each network are kept, and then the model is ranked by the same layers of its own.
    """
    networks = of_architecture(untrained, hit)
    own = hit.vectors(metric)[networks.places].astype(np.float64)
    found = np.where(own.any(axis=1), mine @ own.T, np.nan)
    drawn = np.array([_likeness(one, least) for one in networks.scores(metric, mine)])
    return rank(_likeness(found, least), drawn), len(drawn)


def unjudged(networks: int) -> str:
    """Say why a model is not ranked among this many untrained networks of its architecture."""
    if not networks:
        return "Untrained networks of its architecture are not there (yet)."
    there = "There is one untrained network" if networks == 1 else f"There are {networks} untrained networks"
    return (
        f"{there} of its architecture, and {FEWEST} are needed to tell it from them: each version stored adds its own."
    )


def stored_scores(mine: Scores, metric: Metric, stored: Sequence[Layers], least: float) -> dict[str, float]:
    """Return how like the layers `mine` (n, d) each of the stored models is, by its subject."""
    found = {}
    for one in stored:
        rows = one.vectors(metric).astype(np.float64)
        found[one.subject] = _likeness(np.where(rows.any(axis=1), mine @ rows.T, np.nan), least)
    return found


def among_stored(score: float, others: Sequence[float]) -> float | None:
    """Return the share of scores that are lower, ties half; None where there are fewer than FEWEST_STORED."""
    if len(others) < FEWEST_STORED:
        return None
    scores = np.asarray(others)
    equal = np.abs(scores - score) < 1e-6
    return float(((scores < score) & ~equal).mean() + equal.mean() / 2)


def _likeness(scores: Scores, least: float) -> float:
    """Return the likeness that similarities (n, m) come to; a layer that cannot be compared is none, NaN."""
    comparable = int(np.isfinite(scores).any(axis=0).sum())
    return likeness(float(totals(scores[None], least)[0]), len(scores), comparable)
