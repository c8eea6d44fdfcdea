"""Two models layer by layer: the inner products of their layers' stored vectors, over the same probe images."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.representation.vectors import classic
from layerscope.functions.query import alignment, answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.sketches import related
from layerscope.schemas.alike import CompareAnswer, ComparedBy, LayerMatch
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.stores.catalogue import Outcome
from layerscope.stores.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class StoredLayers:
    """A model's layers in order, and their unit vectors (L, d), zeros where one cannot be compared in this way."""

    probe: str
    images: int
    layers: tuple[Layer, ...]
    vectors: NDArray[np.float64]

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Tell of each layer whether it has a vector."""
        found: NDArray[np.bool_] = np.any(self.vectors != 0, axis=1)
        return found


def compare(store: ObjectStore, a: Identity, b: Identity, metric: ComparedBy) -> CompareAnswer:
    """Return the similarity of each layer of `a` with each of `b`, -1..1; null for a layer that is not indexed.

    Raises:
        Unanswerable: there is no such model, or its layers are not there (yet).
    """
    first, second = (stored(store, manifest_of(store, one), metric) for one in (a, b))
    answer = CompareAnswer(
        a=a.subject,
        b=b.subject,
        metric=metric,
        layers_a=tuple(layer.id for layer in first.layers),
        layers_b=tuple(layer.id for layer in second.layers),
        scores=(),
        kinship=related(store, a, b),
    )
    if first.probe != second.probe:
        reason = f"{a.subject} and {b.subject} have no probe images in common: only models on one dataset are compared."
        return answer.model_copy(update={"reason": reason})
    known = np.outer(first.comparable, second.comparable)
    table = np.where(known, np.clip(first.vectors @ second.vectors.T, -1, 1), np.nan)
    answer = answer.model_copy(
        update={"scores": tuple(tuple(None if np.isnan(one) else float(one) for one in row) for row in table)}
    )
    if metric == "classic":
        return answer
    path = alignment.path(table, alignment.floor(first.images))
    total = sum(one.score for one in path)
    return answer.model_copy(
        update={
            "path": tuple(LayerMatch(a=answer.layers_a[x.a], b=answer.layers_b[x.b], score=x.score) for x in path),
            "score": alignment.likeness(total, int(first.comparable.sum()), int(second.comparable.sum())),
        }
    )


def manifest_of(store: ObjectStore, identity: Identity) -> Manifest:
    """Return the manifest of a model's layer vectors.

    Raises:
        Unanswerable: there is no such model, or its layers are not there (yet).
    """
    found = answers.standing(store, identity)
    outcome = found.outcomes.get("layer_vectors", Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        reason = f"{identity.subject}: {answers.why_no_layers(outcome)}"
        raise Unanswerable(409, f"layers-{outcome.state}", reason, f"GET /models/{identity.subject} says more")
    return outcome.manifest


def stored(store: ObjectStore, manifest: Manifest, metric: ComparedBy) -> StoredLayers:
    """Return the layers that a manifest names, with their vectors by one metric; those of `classic` from the Grams."""
    images, layers = answers.compared(store, manifest)
    content = answers.content(store, manifest.file("grams.npy" if metric == "classic" else f"{metric}.npy"))
    vectors = np.asarray(np.load(io.BytesIO(content), allow_pickle=False), np.float64)
    if metric == "classic":
        ok = np.array([layer.state == "ok" for layer in layers], np.bool_)
        vectors = classic(np.where(ok[:, None], vectors, 0), images)
    return StoredLayers(manifest.inputs.parts["probe"] or "", images, layers, vectors)
