"""Which classes of other models respond to the same images as one class: "who else recognises this". Blocking.

The index answers with the nearest rows over the common probe set, whatever datasets they are of; each hit is then
judged from the bucket.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from layerscope.functions.query import answers
from layerscope.functions.query.class_names import class_number
from layerscope.functions.query.similarity.class_judgement import in_words, judge
from layerscope.functions.query.similarity.filters import (
    EVERY_LAYER,
    Asker,
    Filters,
    contradiction,
    excluded,
    row_filter,
)
from layerscope.functions.query.similarity.filters import in_words as conditions_of
from layerscope.functions.query.similarity.nearest_rows import Wanted, nearest, place_of
from layerscope.functions.query.similarity.sketches import nearest_relatives
from layerscope.functions.query.similarity.stored_classes import Classes, StoredClasses
from layerscope.schemas.alike import Family
from layerscope.schemas.classes import ClassAlikeAnswer, ClassHit
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.class_vectors import ClassLine, ClassVectors
from layerscope.stores import catalogue, product_store
from layerscope.stores.blobs import Damaged
from layerscope.stores.catalogue import Outcome, Standing
from layerscope.stores.index_rows import EVERY_ROW, CatalogueRow, RowMatch
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore

Per = Literal["class", "model"]


@dataclass(frozen=True, slots=True)
class Question:
    """Which classes are most like this one, given by its name or else its number."""

    identity: Identity
    label: str
    k: int
    filters: Filters = EVERY_LAYER
    per: Per = "model"
    cursor: str | None = None
    family: Family | None = None

    def asked(self) -> dict[str, object]:
        """Return what the question means, for the answers that are kept."""
        return {
            "class": self.identity.subject,
            "label": self.label,
            "k": self.k,
            "per": self.per,
            "cursor": self.cursor,
            "family": self.family,
            **dataclasses.asdict(self.filters),
        }


def classes_alike(
    store: ObjectStore,
    vectors: VectorStore,
    stored: StoredClasses,
    lines: Sequence[CatalogueRow],
    asked: Question,
) -> ClassAlikeAnswer:
    """Answer with the classes of other models that are most like one; `lines` are the catalogue.

    Raises:
        Unanswerable: there is no such model or class, or the cursor is not one of ours.
        Unavailable: the bytes of its class vectors are lost.
    """
    found = answers.standing(store, asked.identity)
    names = found.facts.dataset.classes if found.facts and found.facts.dataset else ()
    outcome = found.outcomes.get("class_vectors", Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        return _nothing(
            asked, class_number(asked.label, names, asked.identity) if names else 0, names, _why_no_vectors(outcome)
        )
    product = _loaded(store, outcome.manifest)
    names = tuple(one.name for one in product.classes)
    position = class_number(asked.label, names, asked.identity)
    if reason := _why_not(product.classes[position]):
        return _nothing(asked, position, names, reason)
    by_subject = {line.subject: line for line in lines}
    asker = _asker(store, found, by_subject.get(asked.identity.subject))
    if reason := contradiction(asked.filters, asker):
        return _nothing(asked, position, names, reason)
    wanted = Wanted(
        collection=catalogue.class_collection(product.probe),
        vector=product.vectors[position],
        excluding=excluded(asked.filters, asker),
        where=row_filter(asked.filters, asker),
        k=asked.k,
        per="model" if asked.per == "model" else "layer",
        after=None if asked.cursor is None else place_of(asked.cursor),
    )
    if asked.family is None:
        (matches, following), reason = nearest(vectors, wanted), None
    else:
        matches, following, reason = nearest_relatives(store, vectors, wanted, asked.identity, asked.family, "classes")
    if reason:
        return _nothing(asked, position, names, reason)
    if not matches:
        return _nothing(asked, position, names, _why_none(vectors, wanted, asked, asker))
    mine = Classes(outcome.manifest.content, product.vectors, product.untrained)
    population = stored.representatives(lines, product.probe)
    bench = _Bench(stored, by_subject, product.probe, mine, position, names[position], population)
    return ClassAlikeAnswer(
        class_name=names[position],
        class_index=position,
        images=product.images,
        hits=tuple(bench.hit(one) for one in matches),
        next=following,
    )


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the hits of one question are judged by."""

    stored: StoredClasses
    lines: Mapping[str, CatalogueRow]
    probe: str
    mine: Classes
    position: int
    name: str
    population: Sequence[Classes]

    def hit(self, match: RowMatch) -> ClassHit:
        """Return a row that was found, with what its likeness is worth."""
        identity, line = Identity.parse(match.subject), self.lines.get(match.subject)
        theirs = self.stored.of(line, self.probe) if line else None
        at = match.layer_index
        known = theirs is not None and at < len(theirs.vectors)
        judged = judge(self.mine, self.position, theirs, at, self.population) if theirs and known else None
        return ClassHit(
            dataset=identity.dataset,
            model=identity.model,
            version=identity.version,
            class_name=match.layer,
            class_index=at,
            score=match.score,
            test_accuracy=match.test_accuracy,
            recall=theirs.recalls[at] if theirs and at < len(theirs.recalls) else None,
            judgement=judged,
            sentence=in_words(judged, self.name, match.layer),
        )


def _loaded(store: ObjectStore, manifest: Manifest) -> ClassVectors:
    try:
        found = product_store.load(store, ClassVectors, manifest)
    except Damaged as damaged:
        raise Unavailable(f"the class vectors of {manifest.identity.subject} are damaged") from damaged
    assert isinstance(found, ClassVectors)
    return found


def _asker(store: ObjectStore, found: Standing, line: CatalogueRow | None) -> Asker:
    """Return what filters compare with; a model whose layers are not there has no architecture that others have."""
    layers = found.outcomes["layer_vectors"].manifest
    known = layers is not None and layers.state == "complete"
    architecture = catalogue.architecture_of(answers.compared(store, layers).layers) if layers and known else "unknown"
    return Asker(found.upload.identity, line.test_accuracy if line else None, architecture)


def _why_no_vectors(outcome: Outcome) -> str:
    if outcome.refusal is not None:
        return f"{outcome.refusal.message} {outcome.refusal.hint}".strip()
    if outcome.failure is not None:
        return f"Its class vectors could not be computed: {outcome.failure.explanation}"
    return (
        "Its class vectors are still being computed."
        if outcome.state == "computing"
        else "Its upload was not admitted."
    )


def _why_not(line: ClassLine) -> str | None:
    if line.state == "constant":
        return "The model answers every common probe image alike with this class, so there is nothing to compare."
    if line.state == "non_finite":
        return "The model's outputs on the common probe images are not all finite, so its classes cannot be compared."
    return None


def _why_none(vectors: VectorStore, wanted: Wanted, asked: Question, asker: Asker) -> str:
    if wanted.after is not None:
        return "The page before was the last."
    whole = dataclasses.replace(wanted, where=EVERY_ROW, excluding=asker.identity.subject, k=1)
    matches, _ = nearest(vectors, whole)
    if not matches:
        return (
            "No other model has been indexed over the same common probe images; only over these are classes compared."
        )
    there, conditions = matches[0], conditions_of(asked.filters, asker)
    return (
        f"There are no classes of models {', and '.join(conditions)} over the same common probe images. "
        f"Without that, the nearest is {there.layer} of {there.subject}."
    )


def _nothing(asked: Question, position: int, names: Sequence[str], reason: str) -> ClassAlikeAnswer:
    name = names[position] if names else asked.label
    return ClassAlikeAnswer(class_name=name, class_index=position, images=0, hits=(), reason=reason)
