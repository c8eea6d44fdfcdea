"""What is answered across models: the list of them, refused keys, and the layers most like one layer. Blocking."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.functions.query.answers import Unanswerable, compared, standing, unknown, why_no_layers
from layerscope.functions.query.similarity.filters import (
    EVERY_LAYER,
    Asker,
    Filters,
    contradiction,
    excluded,
    in_words,
    row_filter,
)
from layerscope.functions.query.similarity.nearest_rows import Per, Wanted, nearest, place_of
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS, ask_common, images_of
from layerscope.functions.query.similarity.sketches import nearest_relatives
from layerscope.schemas import figures, keys
from layerscope.schemas.alike import Family
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import RefusedKey
from layerscope.schemas.products.layer_vectors import Layer, Metric
from layerscope.schemas.queries import (
    Hit,
    ModelLine,
    ModelList,
    ProductState,
    RefusalList,
    RefusedUpload,
    SimilarAnswer,
)
from layerscope.stores import catalogue, damage
from layerscope.stores.catalogue import Outcome
from layerscope.stores.index_rows import EVERY_ROW, CatalogueRow, RowMatch
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.uploads import by_identity
from layerscope.stores.vector_store import VectorStore

ONLY_SAME: Final = "only over the same images are they compared"
ONLY_SHAPE: Final = "only datasets of one image shape share them"


@dataclass(frozen=True, slots=True)
class Question:
    """Which layers of other models are most like this one."""

    identity: Identity
    layer: str
    metric: Metric
    k: int
    filters: Filters = EVERY_LAYER
    per: Per = "layer"
    cursor: str | None = None
    probe: ProbeName = "own"
    family: Family | None = None

    def asked(self) -> dict[str, object]:
        """Return what the question means, for the answers that are kept."""
        return {
            "similar": self.identity.subject,
            "layer": self.layer,
            "metric": self.metric,
            "k": self.k,
            "per": self.per,
            "cursor": self.cursor,
            "probe": self.probe,
            "family": self.family,
            **dataclasses.asdict(self.filters),
        }


def newest_first(lines: Iterable[CatalogueRow]) -> list[CatalogueRow]:
    """Return the catalogue in the order in which it is listed."""
    return sorted(lines, key=_place, reverse=True)


def models(
    lines: Sequence[CatalogueRow], dataset: str | None, state: ProductState | None, limit: int, cursor: str | None
) -> ModelList:
    """Choose of the model versions, `newest_first`, a page from after `cursor` on.

    Raises:
        Unanswerable: the cursor is not one of ours.
    """
    if cursor is not None:
        uploaded, _, subject = cursor.partition("|")
        if not subject:
            raise Unanswerable(422, "bad-cursor", "The cursor is not the `next` of a page.", "leave it out to begin")
        lines = [line for line in lines if _place(line) < (uploaded, subject)]
    chosen = [
        line
        for line in lines
        if (dataset is None or line.subject.startswith(f"{dataset}/")) and (state is None or line.state == state)
    ]
    page = chosen[:limit]
    more = "|".join(_place(page[-1])) if len(chosen) > limit else None
    reason = None if page else _why_no_models(lines, dataset, state, cursor)
    return ModelList(models=tuple(_model_line(line) for line in page), next=more, reason=reason)


def _why_no_models(
    lines: Sequence[CatalogueRow], dataset: str | None, state: ProductState | None, cursor: str | None
) -> str:
    if cursor is not None:
        return "The page before was the last."
    if not lines:
        return "There are no models yet."
    conditions = [f"on the dataset {dataset}"] if dataset else []
    conditions += [f"in the state {state}"] if state else []
    return f"None of the {len(lines)} models is {' and '.join(conditions)}."


def refusals(store: ObjectStore) -> RefusalList:
    """List the uploads whose keys break the rule, and that still exist."""
    _, misnamed = by_identity(store.list(keys.MODELS))
    listed = []
    for one in misnamed:
        record = damage.read_json(store, keys.PRODUCTS, keys.refused_key(one.key), RefusedKey)
        if record is None:
            continue  # `admit` has yet to hear of it
        refusal = record.refusal
        listed.append(RefusedUpload(key=record.key, code=refusal.code, message=refusal.message, hint=refusal.hint))
    reason = None if listed else "No upload that is there has a key that breaks the rule."
    return RefusalList(refusals=tuple(listed), reason=reason)


def similar(store: ObjectStore, vectors: VectorStore, asked: Question) -> SimilarAnswer:
    """Answer with the layers of other models nearest to a layer, over the same probe set.

    A hit's `z` is its score over the standard deviation √(2 / (n (n - 3))) that debiased CKA has under random pairing
    of the n probe images, and so has the overlap of neighbours; it holds for every pair of layers.
    """
    found, probe_set = standing(store, asked.identity), PROBE_SETS[asked.probe]
    outcome = found.outcomes.get(probe_set.product.declared.name, Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        return _nothing(asked, why_no_layers(outcome, images_of(asked.identity, asked.probe)))
    among = compared(store, outcome.manifest)
    position = _position(among.layers, asked)
    if reason := _why_not(among.layers[position], asked.metric):
        return _nothing(asked, reason)
    collection = probe_set.collection(asked.metric, among.probe)
    vector = vectors.vector(collection, catalogue.uid(asked.identity, outcome.manifest.address, position))
    if vector is None:
        return _nothing(asked, "This layer is not in the index yet.")
    asker = Asker(asked.identity, _accuracy(vectors, asked.identity), catalogue.architecture_of(among.layers))
    if reason := contradiction(asked.filters, asker):
        return _nothing(asked, reason)
    after = None if asked.cursor is None else place_of(asked.cursor)
    wanted = Wanted(
        collection=collection,
        vector=vector,
        excluding=excluded(asked.filters, asker),
        where=row_filter(asked.filters, asker),
        k=asked.k,
        per=asked.per,
        after=after,
    )
    if asked.family is None:
        (matches, following), reason = nearest(vectors, wanted), None
    else:
        matches, following, reason = nearest_relatives(store, vectors, wanted, asked.identity, asked.family, "layers")
    if reason:
        return _nothing(asked, reason)
    if not matches:
        return _nothing(asked, _why_none(vectors, wanted, asked, asker))
    deviation = None if asked.metric == "classic" else math.sqrt(2 / (among.images * (among.images - 3)))
    hits = tuple(_hit(one, deviation) for one in matches)
    return SimilarAnswer(layer=asked.layer, metric=asked.metric, probe=asked.probe, hits=hits, next=following)


def _accuracy(vectors: VectorStore, identity: Identity) -> float | None:
    line = vectors.line(identity.subject)
    return line.test_accuracy if line else None


def _why_none(vectors: VectorStore, wanted: Wanted, asked: Question, asker: Asker) -> str:
    """Say why a page is empty: it is past the last, nothing else is stored, or the filters leave nothing."""
    if wanted.after is not None:
        return "The page before was the last."
    whole = dataclasses.replace(wanted, where=EVERY_ROW, excluding=asker.identity.subject, k=1)
    matches, _ = nearest(vectors, whole)
    images = images_of(asker.identity, asked.probe)
    if not matches:
        why = ONLY_SAME if asked.probe == "own" else ONLY_SHAPE
        return f"No other model has layers over {images} yet; {why}."
    there, conditions = matches[0], in_words(asked.filters, asker)
    return (
        f"There are no layers of models {', and '.join(conditions)} over {images}. "
        f"Without that, the nearest is {there.layer} of {there.subject}.{ask_common(asked.filters, asked.probe)}"
    )


def _position(layers: Sequence[Layer], asked: Question) -> int:
    position = next((at for at, layer in enumerate(layers) if layer.id == asked.layer), None)
    if position is None:
        there = ", ".join(layer.id for layer in layers[:20])
        unknown("layer", f"{asked.identity.subject} has no layer {asked.layer[:100]!r}.", f"its layers begin: {there}")
    return position


def _why_not(layer: Layer, metric: Metric) -> str | None:
    if layer.state == "constant":
        return "This layer answers every probe image alike, so there is nothing to compare."
    if layer.state == "non_finite":
        return "This layer's responses are not all finite, so they cannot be compared."
    if layer.state != "ok":
        return f"This layer cannot be compared: it is {layer.state}."
    if metric in ("deconfounded", "neighbours") and layer.input_like:
        return "This layer passes the images on, and nothing is left without them; ask with metric=cka."
    return None


def _nothing(asked: Question, reason: str) -> SimilarAnswer:
    return SimilarAnswer(layer=asked.layer, metric=asked.metric, probe=asked.probe, hits=(), reason=reason)


def _hit(match: RowMatch, deviation: float | None) -> Hit:
    identity = Identity.parse(match.subject)
    return Hit(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        layer=match.layer,
        score=match.score,
        z=None if deviation is None else round(match.score / deviation, 2),
        test_accuracy=match.test_accuracy,
    )


def _place(line: CatalogueRow) -> tuple[str, str]:
    return line.uploaded, line.subject


def _model_line(line: CatalogueRow) -> ModelLine:
    identity = Identity.parse(line.subject)
    return ModelLine(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        state=line.state,
        uploaded=line.uploaded,
        content=line.content,
        test_accuracy=line.test_accuracy,
        refusal=line.refusal,
        shortfall=figures.read(line.figures).shortfall,
    )
