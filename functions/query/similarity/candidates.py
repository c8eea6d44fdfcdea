"""The models that one is compared with: their layers' similarities to its own, and the score that these come to. Blocking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.similarity import comparison
from layerscope.functions.query.similarity.alignment import Scores, likeness, totals
from layerscope.functions.query.similarity.probe_sets import ProbeSet
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.stores.index_rows import RowMatch
from layerscope.stores.object_store import ObjectStore


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


def candidates_of(lists: Sequence[Sequence[RowMatch]]) -> list[Candidate]:
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


def ranked(candidates: Iterable[Candidate], least: float) -> list[Scored]:
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


def compared_again(
    store: ObjectStore, metric: Metric, mine: Scores, probe: tuple[ProbeSet, str], chosen: Iterable[Scored]
) -> Iterable[Candidate]:
    """Yield candidates with all of their layers, from the bucket; one that has changed since is left out."""
    probe_set, digest = probe
    for one in chosen:
        try:
            manifest = comparison.manifest_of(store, one.candidate.identity, probe_set)
        except Unanswerable:
            continue
        other = comparison.stored(store, manifest, metric)
        if other.probe == digest:
            scores = mine @ other.vectors[other.comparable].T
            yield Candidate(one.candidate.identity, one.candidate.test_accuracy, scores)
