"""Which models are most like one model: by the likeness of their layers in order, and by their weights. Blocking.

The index answers, for each layer of the model, with its similarity to every other stored layer over the same probe set.
From these the best matches in order are found for all models at once. It is asked for the `NEAREST` of each layer only;
where there are more, the models of the nearest layers are chosen first, and then compared from the bucket.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from layerscope.functions.query import answers, comparison
from layerscope.functions.query.alignment import Scores, floor, likeness, path, totals
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.families import kinship
from layerscope.functions.query.sketches import sketch
from layerscope.schemas.alike import AlikeAnswer, AlikeModel
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import LayerVectors, Metric
from layerscope.schemas.products.weight_sketch import WeightSketch
from layerscope.stores.catalogue import Outcome
from layerscope.stores.index_rows import RowFilter, RowMatch, collection_name
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore

NEAREST: Final = 400
"""Rows that the index is asked for with each layer; Milvus Lite needs about a tenth of a millisecond for each."""
CHOSEN: Final = 2
"""Models that are compared layer by layer for each that is asked for, where the index holds too many to compare all."""
FEWEST_CHOSEN: Final = 30
TOLD: Final[Mapping[str, Literal["this", "other"]]] = {"a": "this", "b": "other"}
UNSKETCHED: Final = "The weights of one of the two have not been sketched (yet)."


@dataclass(frozen=True, slots=True)
class Question:
    """Which models are most like this one; a hit has at least `min_accuracy`, where that is asked for."""

    identity: Identity
    metric: Metric
    k: int
    min_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """Another model: the similarities (n, m) of the layers of the one asked for to its layers, in order."""

    identity: Identity
    test_accuracy: float | None
    scores: Scores


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with its score."""

    candidate: Candidate
    score: float


def alike(store: ObjectStore, vectors: VectorStore, asked: Question, *, most: int = NEAREST) -> AlikeAnswer:
    """Answer with the models most like one, over the same probe set; `most` rows come in one answer of the index.

    Raises:
        Unanswerable: there is no such model.
    """
    found = answers.standing(store, asked.identity)
    outcome = found.outcomes.get("layer_vectors", Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        return _nothing(asked, 0, answers.why_no_layers(outcome))
    own = comparison.stored(store, outcome.manifest, asked.metric)
    mine = own.vectors[own.comparable]
    if not len(mine):
        return _nothing(asked, 0, "None of its layers can be compared in this way; ask with metric=cka.")
    collection = collection_name(asked.metric, own.probe, LayerVectors.declared.recipe)
    subject = asked.identity.subject
    lists = vectors.search(
        collection, mine.astype(np.float32), k=most, excluding=subject, where=RowFilter(min_accuracy=asked.min_accuracy)
    )
    least, exact = floor(own.images), all(len(one) < most for one in lists)
    ranked = _ranked(_candidates(lists), least)
    if not exact:
        chosen = ranked[: max(FEWEST_CHOSEN, CHOSEN * asked.k)]
        ranked = _ranked(_compared_again(store, asked.metric, mine, own.probe, chosen), least)
    if not ranked:
        return _nothing(asked, len(mine), _why_none(asked))
    line = vectors.line(subject)
    better = _better(ranked, asked.identity.dataset, line.test_accuracy if line else None)
    weights = sketch(store, asked.identity)
    return AlikeAnswer(
        metric=asked.metric,
        layers=len(mine),
        models=len(ranked),
        exact=exact,
        hits=tuple(_hit(store, asked.identity, weights, one, least) for one in ranked[: asked.k]),
        better=_hit(store, asked.identity, weights, better, least) if better else None,
        reason=None if better else _why_no_better(asked, line.test_accuracy if line else None),
    )


def _candidates(lists: Sequence[Sequence[RowMatch]]) -> list[Candidate]:
    """Return every model of the matches; a layer that a list lacks is one whose similarity is not known, NaN."""
    layers: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    accuracies: dict[str, float | None] = {}
    for at, matches in enumerate(lists):
        for match in matches:
            layers[match.subject][match.layer_index].append((at, match.score))
            accuracies[match.subject] = match.test_accuracy
    candidates = []
    for subject, columns in layers.items():
        scores = np.full((len(lists), len(columns)), np.nan)
        for to, index in enumerate(sorted(columns)):
            for at, score in columns[index]:
                scores[at, to] = score
        candidates.append(Candidate(Identity.parse(subject), accuracies[subject], scores))
    return candidates


def _ranked(candidates: Iterable[Candidate], least: float) -> list[Scored]:
    """Return the candidates by their scores, best first, ties by name; those of one number of layers are one stack."""
    stacks: dict[int, list[Candidate]] = defaultdict(list)
    for one in candidates:
        stacks[one.scores.shape[1]].append(one)
    scored = []
    for layers, group in stacks.items():
        sums = totals(np.stack([one.scores for one in group]), least)
        for one, total in zip(group, sums.tolist(), strict=True):
            scored.append(Scored(one, likeness(total, len(one.scores), layers)))
    return sorted(scored, key=lambda one: (-one.score, one.candidate.identity.subject))


def _compared_again(
    store: ObjectStore, metric: Metric, mine: Scores, probe: str, chosen: Iterable[Scored]
) -> Iterable[Candidate]:
    """Yield candidates with all of their layers, from the bucket; one that has changed since is left out."""
    for one in chosen:
        try:
            manifest = comparison.manifest_of(store, one.candidate.identity)
        except Unanswerable:
            continue
        other = comparison.stored(store, manifest, metric)
        if other.probe == probe:
            scores = mine @ other.vectors[other.comparable].T
            yield Candidate(one.candidate.identity, one.candidate.test_accuracy, scores)


def _better(ranked: Iterable[Scored], dataset: str, accuracy: float | None) -> Scored | None:
    """Return the first of higher accuracy on the same dataset, which means on the same test images."""
    for one in ranked:
        theirs = one.candidate.test_accuracy
        if one.candidate.identity.dataset == dataset and None not in (theirs, accuracy) and theirs > accuracy:  # type: ignore[operator]
            return one
    return None


def _hit(store: ObjectStore, asked: Identity, weights: WeightSketch | None, one: Scored, least: float) -> AlikeModel:
    identity, scores = one.candidate.identity, one.candidate.scores
    theirs = sketch(store, identity) if weights else None
    kin = kinship(weights, theirs, (asked.subject, identity.subject)) if weights and theirs else None
    return AlikeModel(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        score=round(one.score, 6),
        matched=len(path(scores, least)),
        layers=scores.shape[1],
        test_accuracy=one.candidate.test_accuracy,
        family=kin.family if kin else None,
        parent=TOLD[kin.parent] if kin and kin.parent else None,
        kinship=kin.sentence if kin else UNSKETCHED,
    )


def _nothing(asked: Question, layers: int, reason: str) -> AlikeAnswer:
    return AlikeAnswer(metric=asked.metric, layers=layers, models=0, exact=True, hits=(), reason=reason)


def _why_none(asked: Question) -> str:
    if asked.min_accuracy is not None:
        return "No other model on the same probe images is that accurate."
    return "No other model has been indexed on the same probe images."


def _why_no_better(asked: Question, accuracy: float | None) -> str:
    if accuracy is None:
        return "Its accuracy is not known (yet), so no model can be called better."
    return f"None of the models compared is more accurate on the test images of {asked.identity.dataset}."
