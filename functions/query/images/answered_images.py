"""Which test images are behind a count, and what a model answers for them: from the arrays of `example_images`. Blocking."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.class_names import class_number
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.example_images import ExampleImages
from layerscope.schemas.products.findings import Findings
from layerscope.schemas.queries import FileLink
from layerscope.schemas.test_images import (
    AnsweredImage,
    ImageList,
    ImageSort,
)
from layerscope.stores import catalogue, product_store
from layerscope.stores.object_store import ObjectStore

Integers = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images are meant, as they were asked for: classes by name or number, confidence in (above, up_to].

    `against` is another model: those that it has right, or wrong (`against_correct`), or else answers differently.
    """

    identity: Identity
    true: str | None = None
    predicted: str | None = None
    correct: bool | None = None
    above: float | None = None
    up_to: float | None = None
    finding: str | None = None
    finite: bool | None = None
    sort: ImageSort = "surest"
    against: Identity | None = None
    against_correct: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What one model answers for the test images (N,), as in `example_images`; `classes` are the names."""

    identity: Identity
    classes: tuple[str, ...]
    labels: Integers
    predicted: Integers
    confidence: Floats
    own: Floats
    description: DatasetDescription

    @property
    def right(self) -> NDArray[np.bool_]:
        """Tell of each image (N,) whether the model has it right."""
        return np.asarray(self.predicted == self.labels, np.bool_)

    def image(self, index: int) -> AnsweredImage:
        """Return one image."""
        said = int(self.predicted[index])
        return AnsweredImage(
            index=index,
            label=int(self.labels[index]),
            label_name=self.classes[self.labels[index]],
            predicted=said if said >= 0 else None,
            predicted_name=self.classes[said] if said >= 0 else None,
            confidence=float(self.confidence[index]),
            own=float(self.own[index]),
            picture=picture_path(self.description, index),
        )


def guesses(store: ObjectStore, identity: Identity) -> bool:
    """Tell whether a model's answers are no better than chance: how sure it is, then means nothing."""
    found = answers.product(store, identity, Findings.declared.name).data
    return found is not None and not found["answers_mean_something"]


def picture_path(description: DatasetDescription, index: int) -> str:
    """Return where the pixels of a test image are: a content, which never changes."""
    part = description.part("test")
    return f"/datasets/{description.name}/images/{index}.png?sha256={part.sha256 if part else ''}"


def listed(store: ObjectStore, asked: Selection, limit: int, after: int) -> ImageList:
    """Return the images that are meant, from the one at place `after` on.

    Raises:
        Unanswerable: there is no such model, class or finding, or what it answers is not there (yet).
    """
    answered = read(store, asked.identity)
    order = chosen(store, answered, asked)
    here = order[after : after + limit]
    more = after + len(here) < len(order)
    return ImageList(
        dataset=asked.identity.dataset,
        model=asked.identity.model,
        version=asked.identity.version,
        total=len(order),
        images=tuple(answered.image(int(one)) for one in here),
        next=str(after + len(here)) if more else None,
        reason=None if len(order) else "No test image is so.",
    )


def read(store: ObjectStore, identity: Identity) -> Answered:
    """Return what a model answers.

    Raises:
        Unanswerable: there is no such model, or it is not there (yet).
    """
    found = answers.standing(store, identity)
    outcome = found.outcomes.get(ExampleImages.declared.name)
    manifest = outcome.manifest if outcome else None
    if manifest is None or manifest.state != "complete" or found.facts is None or found.facts.dataset is None:
        state = outcome.state if outcome else found.state
        why = outcome.refusal.message if outcome and outcome.refusal else f"Its answers are {state}."
        raise Unanswerable(409, f"images-{state}", why, f"GET /models/{identity.subject} says more")
    return _answered(store, identity, manifest, found.facts.dataset)


def read_if_there(store: ObjectStore, identity: Identity) -> Answered | None:
    """Return what a model answers; None where that is not there: of its products only this one is read."""
    seen = catalogue.seen(store, identity)
    if seen is None or seen.facts is None or seen.facts.dataset is None:
        return None
    manifest = product_store.listed_manifest(store, seen.places[ExampleImages.declared.name], seen.listed)
    if manifest is None or manifest.state != "complete":
        return None
    return _answered(store, identity, manifest, seen.facts.dataset)


def chosen(store: ObjectStore, answered: Answered, asked: Selection) -> NDArray[np.int64]:
    """Return the indices of the images that are meant, in the order that was asked for."""
    meant = np.ones(len(answered.labels), np.bool_)
    if asked.true is not None:
        meant &= answered.labels == class_number(asked.true, answered.classes, asked.identity)
    if asked.predicted is not None:
        meant &= answered.predicted == class_number(asked.predicted, answered.classes, asked.identity)
    if asked.correct is not None:
        meant &= answered.right == asked.correct
    if asked.finite is not None:
        meant &= (answered.predicted >= 0) == asked.finite
    if asked.above is not None:
        meant &= (answered.confidence > asked.above) | ((asked.above == 0) & (answered.confidence == 0))
    if asked.up_to is not None:
        meant &= answered.confidence <= asked.up_to
    if asked.against is not None:
        meant &= _held_against(answered, read(store, asked.against), asked.against_correct)
    elif asked.against_correct is not None:
        why = "against_correct is about another model, which is not named."
        raise Unanswerable(409, "against-missing", why, "give against=DATASET/MODEL/VERSION as well")
    if asked.finding is not None:
        return _of_finding(store, asked, meant)
    images = np.flatnonzero(meant)
    by = {
        "surest": -answered.confidence[images],
        "least_sure": answered.confidence[images],
        "label_doubted": answered.own[images],
        "index": images.astype(np.float32),
    }[asked.sort]
    return images[np.argsort(by, kind="stable")]


def same_images(a: Answered, b: Answered) -> None:
    """See to it that two models answer for the same test images and classes.

    Raises:
        Unanswerable: they do not.
    """
    same = a.description.part_digest("test") == b.description.part_digest("test") and a.classes == b.classes
    if not same or len(a.labels) != len(b.labels):
        why = (
            f"{a.identity.subject} and {b.identity.subject} were measured on different test images, so their figures "
            "are not to be held against each other."
        )
        raise Unanswerable(409, "other-images", why, "compare models on one dataset")


def _held_against(answered: Answered, other: Answered, correct: bool | None) -> NDArray[np.bool_]:
    same_images(answered, other)
    differs = other.predicted != answered.predicted
    return np.asarray(differs if correct is None else other.right == correct, np.bool_)


def _of_finding(store: ObjectStore, asked: Selection, meant: NDArray[np.bool_]) -> NDArray[np.int64]:
    product = answers.product(store, asked.identity, Findings.declared.name)
    found = (product.data or {}).get("findings", ())
    kinds = [one["kind"] for one in found]
    if asked.finding not in kinds:
        answers.unknown(
            "finding",
            f"{asked.identity.subject} has no finding {asked.finding!r}.",
            f"it has: {', '.join(kinds) or 'none'}",
        )
    images = _all_of(store, product.files, found, kinds.index(asked.finding))
    return images[meant[images]] if len(images) else images


def _all_of(
    store: ObjectStore, files: Sequence[FileLink], found: Sequence[Mapping[str, Any]], place: int
) -> NDArray[np.int64]:
    """Return all images of the finding at this place; an earlier recipe kept no more than the first ones."""
    every = next((one for one in files if one.name == "all_images.npy"), None)
    if every is None:
        return np.asarray(found[place]["images"], np.int64)
    start = sum(one["total"] for one in found[:place])
    images = np.load(io.BytesIO(answers.content(store, every)), allow_pickle=False)
    return np.asarray(images[start : start + found[place]["total"]], np.int64)


def _answered(store: ObjectStore, identity: Identity, manifest: Manifest, description: DatasetDescription) -> Answered:
    arrays = {name: array(store, manifest, name) for name in ("labels", "predicted", "confidence", "own")}
    return Answered(identity, description.classes, **arrays, description=description)


def array(store: ObjectStore, manifest: Manifest, name: str) -> NDArray[Any]:
    """Return one of the arrays of `example_images`."""
    content = answers.content(store, manifest.file(f"{name}.npy"))
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
