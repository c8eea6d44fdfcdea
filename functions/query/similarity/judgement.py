"""A similarity judged: how it ranks among untrained and stored layers like it, how firm it is, what it may hang on. Pure.

The percentile among untrained layers is that of a permutation test: where the found layer is itself one more layer of an
untrained network of its architecture, it is uniform on 0..1, whatever layer was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.wording.facts import BEYOND
from layerscope.functions.query.similarity import intervals
from layerscope.functions.query.similarity.reference_population import Layers, Population
from layerscope.functions.query.similarity.untrained_networks import FEWEST as FEWEST_UNTRAINED
from layerscope.functions.query.similarity.untrained_networks import of_architecture, rank
from layerscope.schemas.products.layer_vectors import Layer, Metric
from layerscope.schemas.queries import Judgement

WITHIN: Final = 0.7
"""Below it a metric disagrees with one that is beyond; between the two, neither is said."""
FEWEST: Final = 20
NEAR: Final = 1 / 8
LEVERAGE: Final = 0.2
OTHER: Final[dict[Metric, Metric]] = {
    "cka": "deconfounded",
    "deconfounded": "cka",
    "neighbours": "deconfounded",
    "classic": "deconfounded",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One layer of a model: all of that model's layers, and which it is."""

    among: Layers
    position: int

    @property
    def layer(self) -> Layer:
        """Return the layer's line."""
        return self.among.layers[self.position]

    @property
    def depth(self) -> float:
        """Return where it lies in its network, 0..1."""
        return float(self.among.depths[self.position])

    def vector(self, metric: Metric) -> NDArray[np.float32]:
        """Return its vector, zeros where it has none."""
        row: NDArray[np.float32] = self.among.vectors(metric)[self.position]
        return row


def judge(asked: Found, hit: Found, metric: Metric, population: Population) -> Judgement:
    """Return what the score of a hit is worth; `population.untrained` are to have the networks that are made of its model."""
    score = _score(asked, hit, metric)
    references = _untrained(asked, hit, metric, population.untrained)
    untrained = rank(score, references)
    stored, of_stored = _percentile(score, _stored(asked, hit, metric, population.stored))
    other = OTHER[metric]
    by_other = rank(_score(asked, hit, other), _untrained(asked, hit, other, population.untrained))
    if not (asked.vector(other).any() and hit.vector(other).any()):
        by_other = None
    disagree = untrained is not None and by_other is not None and _apart(untrained, by_other)
    return Judgement(
        percentile_untrained=untrained,
        untrained_layers=len(references),
        score_of_untrained=round(float(np.quantile(references, BEYOND)), 4) if untrained is not None else None,
        percentile_stored=stored,
        stored_layers=of_stored,
        interval=_interval(asked, hit, metric, population),
        percentile_untrained_by_other_metric=by_other,
        metrics_disagree=disagree,
        notes=(
            *_standing(untrained, len(references)),
            *_notes(asked.layer, hit.layer, metric, by_other if disagree else None),
        ),
    )


@dataclass(frozen=True, slots=True)
class Best:
    """How a model's best layer ranks among those of R untrained networks like it, and what 95 % of theirs stay below."""

    percentile: float | None
    networks: int
    bound: float | None


def best_layer(asked: Found, model: Layers, metric: Metric, untrained: Sequence[Layers]) -> Best:
    """Return how like the asked layer the most alike one of a model is, beside the most alike one of each untrained network.

    The best of many is more alike than one of them is, so it is with the best of as many that it is compared: of a deep
    architecture some layers of each network are kept, and then it is the best of the same layers of the model.
    """
    networks = of_architecture(untrained, model)
    drawn = networks.scores(metric, asked.vector(metric)[None])[:, 0]
    own = model.vectors(metric)[networks.places].astype(np.float64)
    known = np.where(own.any(axis=1), own @ asked.vector(metric).astype(np.float64), np.nan)
    best, bests = (np.where(np.isnan(one), -1.0, one).max(axis=-1, initial=-1.0) for one in (known, drawn))
    percentile = rank(float(best), bests)
    bound = None if percentile is None else float(np.quantile(bests, BEYOND))
    return Best(percentile, len(bests), bound)


def label_baseline(depth: float, population: Population) -> float | None:
    """Return what a layer's likeness to the labels has to exceed to say that it separates the classes.

    The larger of what the images' pixels have, and what BEYOND of the untrained layers of that depth stay below; None
    where there are too few of them.
    """
    depths, figures = [], []
    for one in population.untrained:
        for layer, at in zip(one.layers, one.depths, strict=True):
            if layer.label_cka is not None:
                depths.append(at)
                figures.append(layer.label_cka)
    near = _near(np.array(depths), depth)
    if near is None:
        return None
    pixels = max(
        (one.label_cka_of_pixels for one in population.untrained if one.label_cka_of_pixels is not None), default=-1.0
    )
    return max(float(np.quantile(np.array(figures)[near], BEYOND)), pixels)


def _score(asked: Found, hit: Found, metric: Metric) -> float:
    return float(asked.vector(metric).astype(np.float64) @ hit.vector(metric).astype(np.float64))


def percentile_untrained(asked: Found, hit: Found, metric: Metric, population: Population) -> float | None:
    """Return which share of the untrained layers like the hit is less like the asked one; None: too few."""
    return rank(_score(asked, hit, metric), _untrained(asked, hit, metric, population.untrained))


def _untrained(asked: Found, hit: Found, metric: Metric, untrained: Sequence[Layers]) -> NDArray[np.float64]:
    """Return how like the asked layer those are that the hit is one more of: the same layer of untrained networks like its own.

    Of a deep architecture some layers are kept: where the hit is none of them, those near its depth stand for it.
    """
    networks = of_architecture(untrained, hit.among)
    chosen = networks.places == hit.position
    if not chosen.any():
        chosen = np.abs(hit.among.depths[networks.places] - hit.depth) <= NEAR + 1e-9
    scores = networks.scores(metric, asked.vector(metric)[None])[:, 0][:, chosen]
    return scores[np.isfinite(scores)]


@dataclass(frozen=True, slots=True)
class _References:
    """What a score is ranked among; where there are too few, `scores` is empty and `there` says how many there are."""

    scores: NDArray[np.float64]
    there: int


def _percentile(score: float, among: _References) -> tuple[float | None, int]:
    """Return which share of the references is below a score, ties half, and their number."""
    if not len(among.scores):
        return None, among.there
    equal = np.abs(among.scores - score) < 1e-6
    return float(((among.scores < score) & ~equal).mean() + equal.mean() / 2), len(among.scores)


def _stored(asked: Found, hit: Found, metric: Metric, stored: Sequence[Layers]) -> _References:
    """Return how like the asked layer those of other models near the hit's depth are, without the hit itself."""
    mine, depths, scores = asked.vector(metric), [np.zeros(0)], [np.zeros(0)]
    for one in stored:
        if one.subject == asked.among.subject:
            continue
        rows = one.vectors(metric)
        comparable: NDArray[np.bool_] = np.asarray(rows.any(axis=1))
        if one.subject == hit.among.subject:
            comparable[hit.position] = False
        depths.append(one.depths[comparable])
        scores.append((rows[comparable] @ mine).astype(np.float64))
    near = _near(np.concatenate(depths), hit.depth)
    if near is None:
        return _References(np.zeros(0), sum(map(len, depths)))
    return _References(np.concatenate(scores)[near], int(near.sum()))


def _near(depths: NDArray[np.float64], depth: float) -> NDArray[np.bool_] | None:
    """Return which lie within NEAR of a depth, or else are the FEWEST nearest, with all as near; None: too few in all."""
    if len(depths) < FEWEST:
        return None
    away = np.abs(depths - depth)
    widest = max(NEAR, float(np.partition(away, FEWEST - 1)[FEWEST - 1]))
    near: NDArray[np.bool_] = away <= widest + 1e-9
    return near


def _apart(one: float, other: float) -> bool:
    return max(one, other) >= BEYOND and min(one, other) < WITHIN


def _interval(asked: Found, hit: Found, metric: Metric, population: Population) -> tuple[float, float] | None:
    made = intervals.halves(metric, asked.among.images, population.untrained)
    if made is None:
        return None
    first, second = (made.of(one.among, one.position) for one in (asked, hit))
    return intervals.of_score(made, _score(asked, hit, metric), first, second)


def _standing(untrained: float | None, there: int) -> Iterator[str]:
    """Say why there is no percentile among so many layers, or how many are as much alike where these are not few."""
    if untrained is None and there:
        layers = "one layer" if there == 1 else f"{there} layers"
        yield (
            f"Not judged: {layers} of untrained networks can stand beside the found one, and {FEWEST_UNTRAINED} are "
            "needed to tell it from them."
        )
    elif untrained is None:
        yield "Not judged: untrained networks of the found model's architecture are not there (yet)."
    elif untrained < BEYOND:
        share = round(100 * (1 - untrained * (there + 1) / there))  # of these, without the found layer
        yield f"Not beyond untrained layers: {share} % of those like it are as much like the asked layer."


def _notes(asked: Layer, hit: Layer, metric: Metric, disagreeing: float | None) -> Iterator[str]:
    """Yield in plain words what else to bear in mind, if anything."""
    for which, layer in (("asked", asked), ("found", hit)):
        if layer.input_like:
            yield f"The {which} layer passes the images on almost unchanged, as first layers do, trained or not."
        if layer.max_leverage is not None and layer.max_leverage > LEVERAGE:
            share = round(100 * layer.max_leverage)
            yield f"One probe image accounts for {share} % of the {which} layer's variation: the score may hang on it."
    if disagreeing is not None:
        yield f"The metrics disagree: by {OTHER[metric]} it is above {round(100 * disagreeing)} % of untrained layers."
