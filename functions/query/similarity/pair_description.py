"""A hit in words: gathers from the bucket and the reference population what is known of two models and two layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from layerscope.functions.analysis.wording.comparison import MOST_MATCHES
from layerscope.functions.analysis.wording.facts import facts_of
from layerscope.functions.analysis.wording.match import BestMatch, ComparedLayer, ComparedModel, LayerMatch
from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable, unknown
from layerscope.functions.query.images.paired import right_alone
from layerscope.functions.query.similarity.comparison import compare
from layerscope.functions.query.similarity.judged_hits import Bench
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS
from layerscope.functions.query.similarity.words import Words
from layerscope.schemas.alike import CompareAnswer
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.confusion_matrix import Confusion
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.products.summary import SummaryLayer
from layerscope.schemas.queries import DescriptionAnswer, Judgement, LayerList, PairedCounts
from layerscope.stores.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers of two models, and in which language to tell of them."""

    a: Identity
    layer_a: str
    b: Identity
    layer_b: str
    metric: Metric
    language: Language
    probe: ProbeName = "own"

    @property
    def identity(self) -> Identity:
        """Return the model whose layer was asked about."""
        return self.a

    def asked(self) -> Mapping[str, str]:
        """Return what the question means, for the answers that are kept."""
        return {
            "described": self.a.subject,
            "layer": self.layer_a,
            "other": self.b.subject,
            "other_layer": self.layer_b,
            "metric": self.metric,
            "probe": self.probe,
            "language": self.language,
        }


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is known of a pair of layers."""

    pair: Pair
    match: LayerMatch
    judgement: Judgement | None


def gather(store: ObjectStore, pair: Pair, bench: Bench | None) -> Gathered:
    """Return what there is to tell of two similar layers and their models. Blocking.

    Raises:
        Unanswerable: a model or layer is not there, or cannot be compared (yet).
    """
    judgement = bench.judge((pair.a, pair.layer_a), (pair.b, pair.layer_b), pair.metric) if bench else None
    return Gathered(pair, _match(store, pair, judgement, bench), judgement)


def answer(found: Gathered, words: Words) -> DescriptionAnswer:
    """Return the answer in these words."""
    pair, match = found.pair, found.match
    return DescriptionAnswer(
        a=pair.a.subject,
        layer_a=pair.layer_a,
        b=pair.b.subject,
        layer_b=pair.layer_b,
        metric=pair.metric,
        probe=pair.probe,
        score=match.score,
        z=match.z,
        judgement=found.judgement,
        paired=PairedCounts(**asdict(match.alone), p_value=match.alone.p_value) if match.alone else None,
        weaker=match.weaker,
        language=pair.language,
        text=" ".join(one.text for one in words.passages),
        passages=words.passages,
        written_by=words.written_by,
        template_reason=words.template_reason,
    )


def _match(store: ObjectStore, pair: Pair, judgement: Judgement | None, bench: Bench | None) -> LayerMatch:
    lists = [answers.layers(store, one, PROBE_SETS[pair.probe].product.declared.name) for one in (pair.a, pair.b)]
    rows, columns = (_position(*one) for one in zip((pair.layer_a, pair.layer_b), lists, strict=True))
    scores = compare(store, pair.a, pair.b, pair.metric, pair.probe)
    score = scores.scores[rows][columns] if scores.scores else None
    if score is None:
        reason = scores.reason or "One of these layers cannot be compared, so there is no score to tell of."
        raise Unanswerable(409, "not-comparable", reason, "GET /models/…/layers has the state of each layer")
    images = scores.images
    return LayerMatch(
        a=_model(store, pair, pair.a, lists[0], rows),
        b=_model(store, pair, pair.b, lists[1], columns),
        metric=pair.metric,
        score=score,
        alone=right_alone(store, pair.a, pair.b) if pair.a.dataset == pair.b.dataset else None,
        z=None if pair.metric == "classic" else round(score / math.sqrt(2 / (images * (images - 3))), 2),
        percentile_untrained=judgement.percentile_untrained if judgement else None,
        percentile_untrained_by_other_metric=judgement.percentile_untrained_by_other_metric if judgement else None,
        label_baselines=_baselines(pair, bench),
        untrained_layers=judgement.untrained_layers if judgement else None,
        untrained_bound=judgement.score_of_untrained if judgement else None,
        interval=judgement.interval if judgement else None,
        best_matches=tuple(_best_matches(pair, scores, bench)),
    )


def _best_matches(pair: Pair, scores: CompareAnswer, bench: Bench | None) -> Iterator[BestMatch]:
    """Yield the best matches in order of the two models' layers, the strongest MOST_MATCHES of them."""
    strongest = sorted(scores.path, key=lambda one: -one.score)[:MOST_MATCHES]
    for one in scores.path:
        if one in strongest:
            rank = bench.percentile((pair.a, one.a), (pair.b, one.b), pair.metric) if bench else None
            yield BestMatch(one.a, one.b, one.score, rank)


def _baselines(pair: Pair, bench: Bench | None) -> tuple[float | None, float | None]:
    if bench is None:
        return None, None
    return bench.label_baseline(pair.a, pair.layer_a), bench.label_baseline(pair.b, pair.layer_b)


def _position(layer: str, among: LayerList) -> int:
    names = [one.layer for one in among.layers]
    if layer not in names:
        subject = f"{among.dataset}/{among.model}/{among.version}"
        unknown("layer", f"{subject} has no layer {layer[:100]!r}.", f"GET /models/{subject}/layers lists them")
    return names.index(layer)


def _model(store: ObjectStore, pair: Pair, identity: Identity, layers: LayerList, position: int) -> ComparedModel:
    confused = _data(store, identity, "confusion_matrix")["most_confused"]
    summary = answers.product(store, identity, "summary").data or {}
    facts = facts_of(
        Evaluation.model_validate(_data(store, identity, "evaluation")),
        Confusion.model_validate(confused[0]) if confused else None,
        layers.layers,
    )
    return ComparedModel(
        subject=identity.subject,
        with_dataset=pair.a.dataset != pair.b.dataset,
        facts=facts,
        compared=ComparedLayer(layers.layers[position], position + 1),
        parameters=summary.get("parameters"),
        multiply_adds=summary.get("multiply_adds"),
        network=tuple(SummaryLayer.model_validate(row) for row in summary.get("layers", ())),
    )


def _data(store: ObjectStore, identity: Identity, name: str) -> dict[str, Any]:
    found = answers.product(store, identity, name)
    if found.data is None or found.outdated:
        reason = found.refusal.message if found.refusal else f"Its {name} is {found.state}."
        raise Unanswerable(
            409, f"{name.replace('_', '-')}-{found.state}", f"{identity.subject}: {reason}", "try again later"
        )
    return found.data
