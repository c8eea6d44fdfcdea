"""Two models layer by layer: the inner products of their layers' stored vectors, over the same probe images.

Those are the probe set of their dataset where they are of one, else the common one of their image shape.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.representation.vectors import classic
from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.similarity import alignment
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS, ProbeSet, images_of, same_own_images
from layerscope.functions.query.similarity.sketches import related
from layerscope.schemas.alike import CompareAnswer, LayerMatch
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import Layer, Metric
from layerscope.stores.catalogue import Outcome
from layerscope.stores.object_store import ObjectStore

NOT_NOW: Final = 409


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


def compare(
    store: ObjectStore, a: Identity, b: Identity, metric: Metric, probe: ProbeName | None = None
) -> CompareAnswer:
    """Return the similarity of each layer of `a` with each of `b`, -1..1; null for a layer that is not indexed.

    Raises:
        Unanswerable: there is no such model, or its layers over its own probe images are not there (yet).
    """
    probe = probe or ("own" if same_own_images(store, a.dataset, b.dataset) else "common")
    answer = CompareAnswer(
        a=a.subject,
        b=b.subject,
        metric=metric,
        probe=probe,
        layers_a=(),
        layers_b=(),
        scores=(),
        kinship=related(store, a, b),
    )
    try:
        first, second = (stored(store, manifest_of(store, one, PROBE_SETS[probe]), metric) for one in (a, b))
    except Unanswerable as error:
        if probe == "own" or error.status != NOT_NOW:
            raise
        names = {"layers_a": _names(store, a), "layers_b": _names(store, b)}
        return answer.model_copy(update={**names, "reason": error.answer.message})
    answer = answer.model_copy(
        update={
            "images": first.images,
            "layers_a": tuple(layer.id for layer in first.layers),
            "layers_b": tuple(layer.id for layer in second.layers),
        }
    )
    if first.probe != second.probe:
        return answer.model_copy(update={"reason": _why_not(a, b, probe)})
    known = np.outer(first.comparable, second.comparable)
    table = np.where(known, np.clip(first.vectors @ second.vectors.T, -1, 1), np.nan)
    answer = answer.model_copy(
        update={"scores": tuple(tuple(None if np.isnan(one) else float(one) for one in row) for row in table)}
    )
    if metric == "classic":
        reason = "By this recipe chance alone scores above 0, and differently from pair to pair, so no path is drawn."
        return answer.model_copy(update={"path_reason": reason})
    path = alignment.path(table, alignment.floor(first.images))
    total = sum(one.score for one in path)
    return answer.model_copy(
        update={
            "path_reason": None if path else "No two of their layers are more alike than chance, so there is none.",
            "path": tuple(LayerMatch(a=answer.layers_a[x.a], b=answer.layers_b[x.b], score=x.score) for x in path),
            "score": alignment.likeness(total, int(first.comparable.sum()), int(second.comparable.sum())),
        }
    )


def _names(store: ObjectStore, identity: Identity) -> tuple[str, ...]:
    """Return a model's layers as its own probe images know them; none where they are not there (yet)."""
    try:
        return tuple(row.layer for row in answers.layers(store, identity).layers)
    except Unanswerable:
        return ()


def _why_not(a: Identity, b: Identity, probe: ProbeName) -> str:
    if probe == "own":
        return f"{a.subject} and {b.subject} were not given the same probe images: ask with probe=common."
    return (
        f"{a.subject} and {b.subject} have no common probe images: only models on datasets of one image shape are "
        "compared. Where it is one, `layerscope datasets renew-common` gives both the same."
    )


def manifest_of(store: ObjectStore, identity: Identity, probe_set: ProbeSet) -> Manifest:
    """Return the manifest of a model's layer vectors over a probe set.

    Raises:
        Unanswerable: there is no such model, or its layers are not there (yet).
    """
    found = answers.standing(store, identity)
    outcome = found.outcomes.get(probe_set.product.declared.name, Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        reason = f"{identity.subject}: {answers.why_no_layers(outcome, images_of(identity, probe_set.name))}"
        raise Unanswerable(409, f"layers-{outcome.state}", reason, f"GET /models/{identity.subject} says more")
    return outcome.manifest


def stored(store: ObjectStore, manifest: Manifest, metric: Metric) -> StoredLayers:
    """Return the layers that a manifest names, with their vectors by one metric; those of `classic` from the Grams."""
    found = answers.compared(store, manifest)
    content = answers.content(store, manifest.file("grams.npy" if metric == "classic" else f"{metric}.npy"))
    vectors = np.asarray(np.load(io.BytesIO(content), allow_pickle=False), np.float64)
    if metric == "classic":
        ok = np.array([layer.state == "ok" for layer in found.layers], np.bool_)
        vectors = classic(np.where(ok[:, None], vectors, 0), found.images)
    return StoredLayers(found.probe, found.images, found.layers, vectors)
