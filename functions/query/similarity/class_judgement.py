"""The likeness of two classes judged: by classes of untrained networks, of stored models, and by the others of the two. Pure.

Of each untrained network its best class counts, for of a model too it is the best class that is found. Where one of the
two models is itself untrained, its likeness is one more draw from that population, and exceeds all R of it with a chance
of 1 / (R + 1) at most; that each of the two is the other's nearest is a condition besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query.similarity.stored_classes import Classes
from layerscope.schemas.classes import ClassJudgement

FEWEST_NETWORKS: Final = 8
FEWEST_STORED: Final = 10
"""Other models below which a rank among their best classes is not given."""


def judge(
    asked: Classes, position: int, hit: Classes, other: int, population: Sequence[Classes]
) -> ClassJudgement | None:
    """Return what the likeness of class `position` of a model and class `other` of another is worth.

    None where there are fewer than FEWEST_NETWORKS untrained networks; those of the two models' own architectures are
    always among them, and those of copies count once.
    """
    by_content = {one.content: one.untrained for one in (asked, hit, *population)}
    mine, theirs = asked.vectors[position], hit.vectors[other]
    score = float(mine.astype(np.float64) @ theirs)
    bests = [_bests(vector, list(by_content.values())) for vector in (mine, theirs)]
    networks = len(bests[0])
    if networks < FEWEST_NETWORKS:
        return None
    share = min(float((one < score - 1e-6).mean()) for one in bests)
    others = {one.content: one.vectors[None] for one in population if one.content not in (asked.content, hit.content)}
    stored = _bests(mine, list(others.values()))
    mutual = _nearest(asked.vectors, theirs) == position and _nearest(hit.vectors, mine) == other
    return ClassJudgement(
        percentile_untrained=share,
        untrained_networks=networks,
        mutual=mutual,
        recognised=mutual and share == 1.0,
        percentile_stored=_share_below(score, stored) if len(stored) >= FEWEST_STORED else None,
        stored_models=len(stored),
    )


def in_words(judged: ClassJudgement | None, asked: str, found: str) -> str:
    """Say what the likeness of the class `asked` and the class `found` of another model is worth."""
    if judged is None:
        return f"There are fewer than {FEWEST_NETWORKS} untrained networks to judge it by, so nothing is said of it."
    of_all = f"{judged.untrained_networks} untrained networks"
    if judged.recognised:
        return (
            f"It recognises much the same under {found} as this model under {asked}: the two are more alike than either is "
            f"to any class of {of_all}, and each is the other's nearest among the classes of its model."
        )
    if judged.percentile_untrained < 1.0:
        as_near = max(round(judged.untrained_networks * (1 - judged.percentile_untrained)), 1)
        are = "has a class that is" if as_near == 1 else "have classes that are"
        return (
            f"No more alike than classes of untrained networks: {as_near} of {of_all} {are} as near to one of the two."
        )
    return (
        f"More alike than classes of {of_all}, but not each other's nearest: another class of one of the two models is "
        "nearer."
    )


def _bests(vector: NDArray[np.float32], untrained: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return for each untrained network how alike its best class is; one without comparable classes has none."""
    bests = []
    for networks in untrained:
        scores = (networks @ vector).astype(np.float64)
        there: NDArray[np.bool_] = np.asarray(networks.any(axis=2))
        bests += [float(line[known].max()) for line, known in zip(scores, there, strict=True) if known.any()]
    return np.array(bests)


def _share_below(score: float, among: NDArray[np.float64]) -> float:
    """Return which share of scores is lower, ties half."""
    equal = np.abs(among - score) < 1e-6
    return float(((among < score) & ~equal).mean() + equal.mean() / 2)


def _nearest(vectors: NDArray[np.float32], vector: NDArray[np.float32]) -> int:
    scores = np.where(vectors.any(axis=1), vectors @ vector, -np.inf)
    return int(scores.argmax())
