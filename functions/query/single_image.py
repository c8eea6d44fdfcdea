"""One test image: its pixels, all scores of a model for it, and what other models on the same images answer. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query import answers
from layerscope.functions.query.answered_images import Answered, array, read
from layerscope.functions.query.stored_outputs import stored_outputs
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.example_images import ExampleImages
from layerscope.schemas.test_images import ClassScore, ImageAnswer, OtherAnswer
from layerscope.stores import datasets, product_store, uploads
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore

MOST_OTHERS: Final = 50


def one(store: ObjectStore, identity: Identity, index: int, lines: Sequence[CatalogueRow]) -> ImageAnswer:
    """Return all that is known of one test image; `lines` is the catalogue, newest first.

    Raises:
        Unanswerable: as of `read`; or there is no such image.
    """
    answered = read(store, identity)
    images = len(answered.labels)
    if index >= images:
        answers.unknown("image", f"The test part has {images} images, counted from 0.", "GET …/images lists them")
    return ImageAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        image=answered.image(index),
        scores=_scores(store, answered, index),
        others=tuple(_others(store, answered, index, lines)),
        previous=index - 1 if index else None,
        next=index + 1 if index + 1 < images else None,
    )


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


def _others(store: ObjectStore, answered: Answered, index: int, lines: Sequence[CatalogueRow]) -> Iterator[OtherAnswer]:
    """Return what others answer for the same image: of other test parts nothing is told."""
    part = answered.description.part_digest("test")
    asked = 0
    for line in lines:
        identity = Identity.parse(line.subject)
        if identity.dataset != answered.identity.dataset or identity == answered.identity or asked >= MOST_OTHERS:
            continue
        upload = uploads.current(store, identity)
        record = uploads.record(store, upload) if upload else None
        if record is None or record.content is None:
            continue
        facts = uploads.facts(store, record)
        manifest = product_store.manifest(store, ExampleImages, facts)
        if manifest is None or manifest.state != "complete" or manifest.inputs.parts.get("test") != part:
            continue
        asked += 1
        predicted = int(array(store, manifest, "predicted")[index])
        yield OtherAnswer(
            dataset=identity.dataset,
            model=identity.model,
            version=identity.version,
            predicted=predicted if predicted >= 0 else None,
            predicted_name=answered.classes[predicted] if predicted >= 0 else None,
            confidence=float(array(store, manifest, "confidence")[index]),
            right=predicted == int(answered.labels[index]),
        )
