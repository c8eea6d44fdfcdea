"""One test image: its pixels, all scores of a model for it, what its versions and other models answer. Blocking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query import answers
from layerscope.functions.query.images.answered_images import Answered, array, read
from layerscope.functions.query.images.stored_outputs import stored_outputs
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.example_images import ExampleImages
from layerscope.schemas.test_images import AnswerCount, ClassScore, ImageAnswer, OtherAnswer, VersionAnswer
from layerscope.stores import datasets, product_store, uploads
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore

MOST_VERSIONS: Final = 100


@dataclass(frozen=True, slots=True)
class OthersPage:
    """Which of the other models are asked: from which place of the list on, and how many."""

    after: int = 0
    limit: int = 50


def one(
    store: ObjectStore, identity: Identity, index: int, lines: Sequence[CatalogueRow], page: OthersPage
) -> ImageAnswer:
    """Return all that is known of one test image; `lines` is the catalogue, newest first.

    Raises:
        Unanswerable: as of `read`; or there is no such image.
    """
    answered = read(store, identity)
    images = len(answered.labels)
    if index >= images:
        answers.unknown("image", f"The test part has {images} images, counted from 0.", "GET …/images lists them")
    listed = [line for line in lines if line.subject.startswith(f"{identity.dataset}/")]
    of_model = f"{identity.dataset}/{identity.model}/"
    versions = [line for line in listed if line.subject.startswith(of_model)]
    rest = [line for line in listed if not line.subject.startswith(of_model)]
    others, after = _others(store, answered, index, rest, page)
    return ImageAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        image=answered.image(index),
        scores=_scores(store, answered, index),
        history=tuple(_history(store, answered, index, versions[:MOST_VERSIONS])),
        versions=len(versions),
        others=others,
        others_listed=len(rest),
        others_next=str(after) if after < len(rest) else None,
        tally=tally(others),
        previous=index - 1 if index else None,
        next=index + 1 if index + 1 < images else None,
    )


def tally(others: Sequence[OtherAnswer]) -> tuple[AnswerCount, ...]:
    """Count answers, the most frequent first, of equals that which comes first."""
    names = {one.predicted: one.predicted_name for one in others}
    counts = Counter(one.predicted for one in others)
    return tuple(AnswerCount(label=label, name=names[label], models=models) for label, models in counts.most_common())


def pixels(store: ObjectStore, description: DatasetDescription, index: int) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of one test image, of which alone the bytes are read.

    Raises:
        Unanswerable: there is no such image.
        DamagedDataset: the stored part is not what it should be.
    """
    part = description.part("test")
    if part is None or index >= part.images:
        answers.unknown("image", f"{description.name} has no test image {index}.", "they are counted from 0")
    return datasets.image(store, description, "test", index)


def _scores(store: ObjectStore, answered: Answered, index: int) -> tuple[ClassScore, ...]:
    """Return every class's probability: of the stored outputs, the row of this image alone is read."""
    if answered.predicted[index] < 0:
        return ()
    found = stored_outputs(store, answered.identity)
    if found is None:
        return ()
    (probabilities,) = found.probabilities(index, index + 1)
    order = np.argsort(-probabilities, kind="stable")
    return tuple(ClassScore(label=int(k), name=answered.classes[k], probability=float(probabilities[k])) for k in order)


def _others(
    store: ObjectStore, answered: Answered, index: int, lines: Sequence[CatalogueRow], page: OthersPage
) -> tuple[tuple[OtherAnswer, ...], int]:
    """Return a page of what others answer for the same image, and the place of the list from which the next one is."""
    found: list[OtherAnswer] = []
    at = page.after
    while at < len(lines) and len(found) < page.limit:
        identity = Identity.parse(lines[at].subject)
        manifest = _comparable(store, answered, identity)
        if manifest is not None:
            found.append(OtherAnswer(**_said(store, answered, index, identity, manifest)))
        at += 1
    return tuple(found), at


def _history(
    store: ObjectStore, answered: Answered, index: int, newest_first: Sequence[CatalogueRow]
) -> Iterator[VersionAnswer]:
    for line in reversed(newest_first):
        identity = Identity.parse(line.subject)
        manifest = _comparable(store, answered, identity)
        if manifest is None:
            continue
        yield VersionAnswer(
            uploaded=line.uploaded,
            own=float(array(store, manifest, "own")[index]),
            **_said(store, answered, index, identity, manifest),
        )


def _comparable(store: ObjectStore, answered: Answered, identity: Identity) -> Manifest | None:
    """Return the manifest of a model's answers on the same images; None: it has none, or on other images."""
    upload = uploads.current(store, identity)
    record = uploads.record(store, upload) if upload else None
    if record is None or record.content is None:
        return None
    manifest = product_store.manifest(store, ExampleImages, uploads.facts(store, record))
    same = manifest is not None and manifest.inputs.parts.get("test") == answered.description.part_digest("test")
    return manifest if same and manifest is not None and manifest.state == "complete" else None


def _said(store: ObjectStore, answered: Answered, index: int, identity: Identity, manifest: Manifest) -> dict[str, Any]:
    """Return the fields of what a model answers for one image."""
    predicted = int(array(store, manifest, "predicted")[index])
    return {
        "dataset": identity.dataset,
        "model": identity.model,
        "version": identity.version,
        "predicted": predicted if predicted >= 0 else None,
        "predicted_name": answered.classes[predicted] if predicted >= 0 else None,
        "confidence": float(array(store, manifest, "confidence")[index]),
        "right": predicted == int(answered.labels[index]),
    }
