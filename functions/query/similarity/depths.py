"""Where in other models the role of one layer is played: nearer to the images than here, about as deep, or later. Pure.

A role is played by the layer of a model that is most like the one asked about, if it is more like it than the best layers
of untrained networks are, and the two may be called alike. Networks of different depth build up like representations at
like relative depths (Kornblith et al. 2019, figure 4), so a shift says something of the two models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from layerscope.functions.analysis.wording.facts import BEYOND
from layerscope.functions.analysis.wording.match import LARGE
from layerscope.functions.query.similarity.judgement import Best
from layerscope.schemas.depths import Played, RoleAnswer, RolePlace
from layerscope.schemas.queries import Hit, SimilarAnswer

AS_DEEP: Final = 1 / 8
"""Relative depths that lie as near as this are about the same: a layer of eight."""


def roles(
    answer: SimilarAnswer,
    depth: float | None,
    depth_of: Callable[[Hit], float | None],
    best_of: Callable[[Hit], Best | None],
) -> RoleAnswer:
    """Return where the role of a layer at a relative depth, 0..1, is played, by the best layer of each model.

    `answer` has one judged hit a model; `depth_of` returns the relative depth of the layer that was found, and `best_of`
    how it ranks as the best of its model.
    """
    if depth is None or not answer.hits:
        reason = answer.reason or "The layers of this model are not stored (any more)."
        return RoleAnswer(
            layer=answer.layer,
            metric=answer.metric,
            probe=answer.probe,
            depth=depth,
            models=0,
            roles=(),
            reason=reason,
        )
    found = tuple(_role(hit, depth, depth_of(hit), best_of(hit)) for hit in answer.hits)
    counts = Counter(one.played for one in found)
    return RoleAnswer(
        layer=answer.layer,
        metric=answer.metric,
        probe=answer.probe,
        depth=depth,
        models=len(found),
        roles=found,
        next=answer.next,
        reason=_sentence(counts),
    )


def _role(hit: Hit, depth: float, theirs: float | None, best: Best | None) -> RolePlace:
    return RolePlace(
        dataset=hit.dataset,
        model=hit.model,
        version=hit.version,
        layer=hit.layer,
        depth=theirs,
        score=hit.score,
        percentile_untrained=best.percentile if best else None,
        untrained_networks=best.networks if best else 0,
        percentile_stored=hit.judgement.percentile_stored if hit.judgement else None,
        test_accuracy=hit.test_accuracy,
        played=_played(hit, depth, theirs, best),
    )


def _played(hit: Hit, depth: float, theirs: float | None, best: Best | None) -> Played:
    judged = hit.judgement
    if theirs is None or judged is None or judged.interval is None or best is None or best.bound is None:
        return "not_judged"
    beyond = (best.percentile or 0.0) >= BEYOND and judged.interval[0] > best.bound
    if not beyond or hit.score < LARGE or judged.metrics_disagree:
        return "absent"
    if abs(theirs - depth) <= AS_DEEP:
        return "as_deep"
    return "earlier" if theirs < depth else "later"


def _sentence(counts: Counter[Played]) -> str:
    models, unjudged = sum(counts.values()), counts["not_judged"]
    if unjudged == models:
        return "There are too few untrained networks like these models yet to tell whether a likeness means a role."
    playing = [counts[place] for place in ("earlier", "as_deep", "later")]
    told = (
        f"In {sum(playing)} of {models} models a layer plays its role: earlier in {playing[0]}, about as deep in "
        f"{playing[1]}, later in {playing[2]}. In {counts['absent']} no layer is much like it, and clearly more than the best "
        "of untrained networks."
    )
    return f"{told} {unjudged} cannot be judged yet." if unjudged else told
