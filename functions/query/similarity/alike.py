"""Which models are most like one model: by the likeness of their layers in order, and by their weights. Blocking.

The index answers, for each layer of the model, with its similarity to every other stored layer over the same probe set.
From these the best matches in order are found for all models at once. It is asked for the `NEAREST` of each layer only;
where there are more, the models of the nearest layers are chosen first, and then compared from the bucket. What a score
is worth, its rank among untrained networks of the found architecture tells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.similarity import comparison, intervals
from layerscope.functions.query.similarity.alignment import Scores, floor, path
from layerscope.functions.query.similarity.candidates import Scored, candidates_of, compared_again, ranked
from layerscope.functions.query.similarity.comparison import StoredLayers
from layerscope.functions.query.similarity.families import kinship
from layerscope.functions.query.similarity.filters import (
    EVERY_LAYER,
    Asker,
    Filters,
    contradiction,
    excluded,
    in_words,
    row_filter,
)
from layerscope.functions.query.similarity.judged_hits import Bench
from layerscope.functions.query.similarity.model_percentile import (
    among_stored,
    among_untrained,
    stored_scores,
    unjudged,
)
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS, ask_common, images_of
from layerscope.functions.query.similarity.sketches import MOST_SKETCHED, sketch, unsketched
from layerscope.schemas.alike import AlikeAnswer, AlikeModel, Family
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Debiased
from layerscope.schemas.products.weight_sketch import WeightSketch
from layerscope.stores import catalogue
from layerscope.stores.catalogue import Outcome
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore

NEAREST: Final = 400
"""Rows that the index is asked for with each layer; Milvus Lite needs about a tenth of a millisecond for each."""
CHOSEN: Final = 2
"""Models that are compared layer by layer for each that is asked for, where the index holds too many to compare all."""
FEWEST_CHOSEN: Final = 30
MOST_INTERVALS: Final = 10
"""Hits that have one: of two models of 50 layers it takes a quarter of a second."""
TOLD: Final[Mapping[str, Literal["this", "other"]]] = {"a": "this", "b": "other"}
UNSKETCHED: Final = "The weights of one of the two have not been sketched (yet)."


@dataclass(frozen=True, slots=True)
class Question:
    """Which models are most like this one, of those that the filters leave, and of one family where that is asked for."""

    identity: Identity
    metric: Debiased
    k: int
    filters: Filters = EVERY_LAYER
    family: Family | None = None
    probe: ProbeName = "own"
    cursor: str | None = None

    def asked(self) -> dict[str, object]:
        """Return what the question means, for the answers that are kept."""
        return {
            "alike": self.identity.subject,
            "metric": self.metric,
            "k": self.k,
            "family": self.family,
            "probe": self.probe,
            "cursor": self.cursor,
            **dataclasses.asdict(self.filters),
        }


@dataclass(frozen=True, slots=True)
class PageStart:
    """After which model a page begins, and how many were listed up to it."""

    score: float
    subject: str
    listed: int

    @classmethod
    def read(cls, cursor: str) -> PageStart:
        """Read a cursor.

        Raises:
            Unanswerable: it is not one of ours.
        """
        try:
            score, subject, listed = cursor.split("|")
            Identity.parse(subject)
            return cls(float(score), subject, int(listed))
        except ValueError as error:
            hint = "leave it out to begin"
            raise Unanswerable(422, "bad-cursor", "The cursor is not the `next` of a page.", hint) from error

    def cursor(self) -> str:
        """Write it."""
        return f"{self.score!r}|{self.subject}|{self.listed}"

    def is_before(self, one: Scored) -> bool:
        """Tell whether a model comes later, by its score and then its name."""
        return (-self.score, self.subject) < (-one.score, one.candidate.identity.subject)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The candidates by their scores, best first, as the layers `mine` (n, d) have them, and what these are judged by."""

    models: Sequence[Scored]
    mine: Scores
    exact: bool
    least: float
    judges: Bench | None
    stored: Mapping[str, float]
    """What the stored models that stand for all have, by subject, whatever models were asked for."""


def alike(
    store: ObjectStore, vectors: VectorStore, asked: Question, judges: Bench | None = None, *, most: int = NEAREST
) -> AlikeAnswer:
    """Answer with the models most like one, over the same probe set; `most` rows come in one answer of the index.

    Raises:
        Unanswerable: there is no such model, or the cursor is not one of ours.
    """
    after = PageStart.read(asked.cursor) if asked.cursor is not None else None
    found = answers.standing(store, asked.identity)
    outcome = found.outcomes.get(PROBE_SETS[asked.probe].product.declared.name, Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        return _nothing(asked, 0, answers.why_no_layers(outcome, images_of(asked.identity, asked.probe)))
    own = comparison.stored(store, outcome.manifest, asked.metric)
    mine = own.vectors[own.comparable]
    if not len(mine):
        return _nothing(asked, 0, "None of its layers can be compared in this way; ask with metric=cka.")
    line = vectors.line(asked.identity.subject)
    asker = Asker(asked.identity, line.test_accuracy if line else None, catalogue.architecture_of(own.layers))
    if reason := contradiction(asked.filters, asker):
        return _nothing(asked, len(mine), reason)
    ranking = _ranking(store, vectors, (asked, asker), own, most, judges)
    if not ranking.models:
        return _nothing(asked, len(mine), _why_none(asked, asker))
    better = _better(ranking.models, asked.identity.dataset, asker.test_accuracy)
    if better is None and not ranking.exact:
        better = _searched_better(store, vectors, (asked, asker), own, most)
    hits, following, reason = _hits(store, asked, ranking, after)
    named = _hit(store, asked, sketch(store, asked.identity), better, ranking) if better else None
    spread = _spread(asked, ranking)
    return AlikeAnswer(
        metric=asked.metric,
        probe=asked.probe,
        layers=len(mine),
        models=len(ranking.models),
        exact=ranking.exact,
        hits=(*map(spread, hits[:MOST_INTERVALS]), *hits[MOST_INTERVALS:]),
        next=following,
        better=spread(named) if named else None,
        reason=reason or (None if better else _why_no_better(asked, asker.test_accuracy)),
    )


def _ranking(
    store: ObjectStore,
    vectors: VectorStore,
    question: tuple[Question, Asker],
    own: StoredLayers,
    most: int,
    judges: Bench | None,
) -> Ranking:
    asked, mine, least = question[0], own.vectors[own.comparable], floor(own.images)
    found, exact = _compared(store, vectors, question, own, most)
    if judges is None or judges.probe != own.probe:
        return Ranking(found, mine, exact, least, None, {})
    stored = stored_scores(mine, asked.metric, judges.population.stored, least)
    return Ranking(found, mine, exact, least, judges, stored)


def _compared(
    store: ObjectStore, vectors: VectorStore, question: tuple[Question, Asker], own: StoredLayers, most: int
) -> tuple[list[Scored], bool]:
    """Return the models that the filters leave, the most alike first, and whether these are all of them."""
    (asked, asker), mine, probe_set = question, own.vectors[own.comparable], PROBE_SETS[question[0].probe]
    lists = vectors.search(
        probe_set.collection(asked.metric, own.probe),
        mine.astype(np.float32),
        k=most,
        excluding=excluded(asked.filters, asker),
        where=row_filter(asked.filters, asker),
    )
    least, exact = floor(own.images), all(len(one) < most for one in lists)
    found = ranked(candidates_of(lists), least)
    if not exact:
        listed = PageStart.read(asked.cursor).listed if asked.cursor is not None else 0
        more = max(FEWEST_CHOSEN, CHOSEN * asked.k) if asked.family is None else MOST_SKETCHED
        chosen = found[: listed + more]
        found = ranked(compared_again(store, asked.metric, mine, (probe_set, own.probe), chosen), least)
    return found, exact


def _searched_better(
    store: ObjectStore, vectors: VectorStore, question: tuple[Question, Asker], own: StoredLayers, most: int
) -> Scored | None:
    """Return the most alike of the more accurate models, which none of the nearest need be, from a search for these alone."""
    asked, asker = question
    filters = dataclasses.replace(asked.filters, better=True, same_dataset=True)
    if contradiction(filters, asker):
        return None
    narrowed = dataclasses.replace(asked, filters=filters, family=None, k=1, cursor=None)
    found, _ = _compared(store, vectors, (narrowed, asker), own, most)
    return next(iter(found), None)


def _hits(
    store: ObjectStore, asked: Question, ranking: Ranking, after: PageStart | None
) -> tuple[tuple[AlikeModel, ...], str | None, str | None]:
    """Return a page of the best, of one family where that is asked for, the next page's cursor, and why there are none."""
    weights = sketch(store, asked.identity)
    if asked.family is not None and weights is None:
        return (), None, unsketched(asked.identity)
    later = [one for one in ranking.models if after is None or after.is_before(one)]
    looked_at = later[: asked.k if asked.family is None else MOST_SKETCHED]
    hits: list[AlikeModel] = []
    passed: Scored | None = None
    for one in looked_at:
        hit, passed = _hit(store, asked, weights, one, ranking), one
        if asked.family in (None, hit.family):
            hits.append(hit)
        if len(hits) == asked.k:
            break
    cursor = None
    if passed is not None and passed is not later[-1]:
        listed = (after.listed if after else 0) + later.index(passed) + 1
        cursor = PageStart(passed.score, passed.candidate.identity.subject, listed).cursor()
    if hits:
        return tuple(hits), cursor, None
    if not looked_at:
        return (), None, "The page before was the last."
    models = "the one model" if len(looked_at) == 1 else f"the {len(looked_at)} models"
    like = "most like it" if after is None else "next most like it"
    return (), cursor, f"Of {models} {like} none is of the family {asked.family}."


def _spread(asked: Question, ranking: Ranking) -> Callable[[AlikeModel], AlikeModel]:
    """Return what gives a hit its interval, as far as it can be told."""
    judges = ranking.judges
    mine = judges.layers(asked.identity) if judges else None
    made = (
        intervals.halves(asked.metric, mine.images, judges.beside(asked.identity).untrained)
        if judges and mine
        else None
    )
    own = intervals.stacked(made, mine) if made and mine else None

    def spread(hit: AlikeModel) -> AlikeModel:
        theirs = judges.layers(hit.identity) if judges else None
        if made is None or own is None or theirs is None:
            return hit
        return hit.model_copy(update={"interval": intervals.of_likeness(made, own, intervals.stacked(made, theirs))})

    return spread


def _better(ranked: Iterable[Scored], dataset: str, accuracy: float | None) -> Scored | None:
    """Return the first of higher accuracy on the same dataset, which means on the same test images."""
    for one in ranked:
        theirs = one.candidate.test_accuracy
        if one.candidate.identity.dataset == dataset and None not in (theirs, accuracy) and theirs > accuracy:  # type: ignore[operator]
            return one
    return None


def _hit(
    store: ObjectStore, asked: Question, weights: WeightSketch | None, one: Scored, ranking: Ranking
) -> AlikeModel:
    identity, scores, judges = one.candidate.identity, one.candidate.scores, ranking.judges
    theirs = sketch(store, identity) if weights else None
    kin = kinship(weights, theirs, (asked.identity.subject, identity.subject)) if weights and theirs else None
    layers, beyond, networks = judges.layers(identity) if judges else None, None, 0
    if judges and layers:
        untrained = judges.beside(identity).untrained
        beyond, networks = among_untrained(ranking.mine, layers, asked.metric, untrained, ranking.least)
    left_out = (asked.identity.subject, identity.subject)
    others = [score for subject, score in ranking.stored.items() if subject not in left_out]
    return AlikeModel(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        score=round(one.score, 6),
        percentile_untrained=beyond,
        untrained_networks=networks,
        not_judged=unjudged(networks) if beyond is None else None,
        percentile_stored=among_stored(one.score, others),
        matched=len(path(scores, ranking.least)),
        layers=scores.shape[1],
        test_accuracy=one.candidate.test_accuracy,
        family=kin.family if kin else None,
        parent=TOLD[kin.parent] if kin and kin.parent else None,
        kinship=kin.sentence if kin else UNSKETCHED,
    )


def _nothing(asked: Question, layers: int, reason: str) -> AlikeAnswer:
    return AlikeAnswer(
        metric=asked.metric, probe=asked.probe, layers=layers, models=0, exact=True, hits=(), reason=reason
    )


def _why_none(asked: Question, asker: Asker) -> str:
    if conditions := in_words(asked.filters, asker):
        images, hint = images_of(asked.identity, asked.probe), ask_common(asked.filters, asked.probe)
        return f"There are no models {', and '.join(conditions)}, over {images}.{hint}"
    return "No other model has been indexed on the same probe images."


def _why_no_better(asked: Question, accuracy: float | None) -> str:
    if accuracy is None:
        return "Its accuracy is not known (yet), so no model can be called better."
    return f"None of the models compared is more accurate on the test images of {asked.identity.dataset}."
