"""Two models layer by layer: the inner products of their layers' stored vectors, over the same probe images."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import Layer, Metric
from layerscope.schemas.queries import CompareAnswer
from layerscope.stores.catalogue import Outcome
from layerscope.stores.object_store import ObjectStore


def compare(store: ObjectStore, a: Identity, b: Identity, metric: Metric) -> CompareAnswer:
    """Return the similarity of each layer of `a` with each of `b`, -1..1; null for a layer that is not indexed.

    Raises:
        Unanswerable: there is no such model, or its layers are not there (yet).
    """
    first, second = _layers(store, a), _layers(store, b)
    answer = CompareAnswer(
        a=a.subject,
        b=b.subject,
        metric=metric,
        layers_a=tuple(layer.id for layer in first.layers),
        layers_b=tuple(layer.id for layer in second.layers),
        scores=(),
    )
    if first.probe != second.probe:
        reason = f"{a.subject} and {b.subject} have no probe images in common: only models on one dataset are compared."
        return answer.model_copy(update={"reason": reason})
    rows, columns = (_vectors(store, one.manifest, metric) for one in (first, second))
    scores = np.clip(rows @ columns.T, -1, 1)
    known = np.outer(rows.any(axis=1), columns.any(axis=1))
    table = np.where(known, scores, np.nan)
    return answer.model_copy(
        update={"scores": tuple(tuple(None if np.isnan(one) else float(one) for one in row) for row in table)}
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    probe: str
    layers: tuple[Layer, ...]
    manifest: Manifest


def _layers(store: ObjectStore, identity: Identity) -> _Compared:
    found = answers.standing(store, identity)
    outcome = found.outcomes.get("layer_vectors", Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        reason = f"{identity.subject}: {answers.why_no_layers(outcome)}"
        raise Unanswerable(409, f"layers-{outcome.state}", reason, f"GET /models/{identity.subject} says more")
    _, layers = answers.compared(store, outcome.manifest)
    return _Compared(outcome.manifest.inputs.parts["probe"] or "", layers, outcome.manifest)


def _vectors(store: ObjectStore, manifest: Manifest, metric: Metric) -> NDArray[np.float64]:
    stored = np.load(io.BytesIO(answers.content(store, manifest.file(f"{metric}.npy"))), allow_pickle=False)
    return np.asarray(stored, np.float64)
