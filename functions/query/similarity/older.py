"""The older form of the search: the one best layer of another model version, with its layers and a text in Korean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from layerscope.functions.query import answers, search
from layerscope.functions.query.answers import Unanswerable, unknown
from layerscope.functions.query.search import Question
from layerscope.functions.query.similarity.pair_description import Pair
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import Hit, OlderAnswer
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore

SECONDS: Final = 3_600.0
"""How long an answer is kept, unless the index changes meanwhile."""


def named(lines: Sequence[CatalogueRow], model: str, version: str) -> Identity:
    """Return the one model version of these names, in whichever dataset it is.

    Both may be written as in `model_{id}_v{version}`: `model_7` and `v2`. What is named so in full comes first.

    Raises:
        Unanswerable: there is none, or more than one.
    """
    identities = [Identity.parse(line.subject) for line in lines]
    readings = ([one for one in identities if (one.model, one.version) == it] for it in _readings(model, version))
    found = sorted(next(filter(None, readings), []))
    if not found:
        unknown("model", f"There is no model {model}/{version}.", "GET /models lists those that are there")
    if len(found) > 1:
        subjects = ", ".join(one.subject for one in found)
        hint = "GET /models/DATASET/MODEL/VERSION/layers/LAYER/similar says which"
        raise Unanswerable(409, "ambiguous-model", f"Several datasets have it: {subjects}.", hint)
    return found[0]


def name_of(hit: Hit) -> str:
    """Return how the older system names a model version."""
    return f"model_{hit.model}_v{hit.version}"


def questions(asked: Question, metric: Metric | None) -> tuple[Question, ...]:
    """Return what is asked one after the other until there is a hit, as the older system had one for every layer.

    A layer that passes the images on has no neighbours by what is left without them; it is compared by plain CKA, unless
    a `metric` was asked for. A model that is alone with its images is compared over those that others have too.
    """
    metrics: tuple[Metric, ...] = ("deconfounded", "cka") if metric is None else (metric,)
    probes: tuple[ProbeName, ...] = ("own",) if asked.filters.same_dataset else ("own", "common")
    return tuple(replace(asked, metric=one, probe=probe) for probe in probes for one in metrics)


def best_hit(store: ObjectStore, vectors: Mapping[Question, VectorStore]) -> tuple[Question, Hit]:
    """Return the one best layer of another model version, and the question that found it. Blocking.

    Raises:
        Unanswerable: the asked layer is unknown, or no other layer was found.
    """
    reasons = []
    for asked, index in vectors.items():
        found = search.similar(store, index, asked)
        if found.hits:
            return asked, found.hits[0]
        reasons.append(found.reason or "There is no other layer.")
    raise Unanswerable(404, "no-similar-layer", f"No other layer was found. {reasons[0]}", "ask with fewer filters")


def pair_of(asked: Question, hit: Hit) -> Pair:
    """Return the layer asked for and the hit, to be compared in Korean as ever, over the images that they were found by."""
    return Pair(asked.identity, asked.layer, _identity(hit), hit.layer, asked.metric, "ko", asked.probe)


def no_description(error: Unanswerable) -> str:
    """Say in Korean why there is no comparison."""
    return f"두 모델을 비교하는 설명을 만들 수 없습니다 ({error.answer.code})."


def answer(store: ObjectStore, hit: Hit, text: str) -> OlderAnswer:
    """Return the answer with a hit and the comparison in words. Blocking."""
    return OlderAnswer(
        model_version_id=name_of(hit),
        layer_id=hit.layer,
        gpt_description=text,
        test_accuracy=hit.test_accuracy,
        layers=_layers(store, _identity(hit)),
    )


def _identity(hit: Hit) -> Identity:
    return Identity(hit.dataset, hit.model, hit.version)


def _readings(model: str, version: str) -> Iterator[tuple[str, str]]:
    """Yield what two names of a path may mean, the most literal first."""
    for shorter_model in dict.fromkeys((model, model.removeprefix("model_"))):
        for shorter_version in dict.fromkeys((version, version.removeprefix("v"))):
            yield shorter_model, shorter_version


def _layers(store: ObjectStore, identity: Identity) -> tuple[dict[str, Any], ...]:
    """Return a model's layers as its summary lists them; else those of them that are compared."""
    summary = answers.product(store, identity, "summary").data
    if summary is not None:
        return tuple({name: value for name, value in row.items() if name != "weights"} for row in summary["layers"])
    rows = answers.layers(store, identity).layers
    return tuple({"name": row.name, "type": row.type, "call": row.call, "output": list(row.shape)} for row in rows)
