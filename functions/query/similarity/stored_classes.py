"""The class vectors of models and of untrained networks like them, read from the bucket, the latest kept. Blocking.

A few models stand for all where a likeness is judged, chosen by the digests of their contents as for layers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query.similarity.probe_sets import images_in
from layerscope.functions.query.similarity.reference_population import MOST_MODELS, one_a_content
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.class_vectors import ClassVectors
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.product import Product
from layerscope.stores import product_store, uploads
from layerscope.stores.blobs import Damaged
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore

KEPT: Final = 256

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classes:
    """A model's classes by their vectors (C, n), zeros where there is none, and those of untrained networks (R, C, n).

    `content` is the model's: of copies it is the same, and so are their untrained networks. `recalls` are of the classes
    in order, none where they are not known.
    """

    content: str
    vectors: Vectors
    untrained: Vectors
    recalls: tuple[float | None, ...] = ()


class StoredClasses:
    """Reads what models' classes are; safe in threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, str, str, float | None], Classes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, line: CatalogueRow, probe: str) -> Classes | None:
        """Return the classes of a model version over this common probe set; None where they are not there."""
        if line.content is None:
            return None
        key = (line.subject, line.content, probe, line.test_accuracy)  # the accuracy comes with the recalls
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _read(self._store, Identity.parse(line.subject), probe)
        if found is not None:
            with self._lock:
                self._kept[key] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return found

    def representatives(self, lines: Sequence[CatalogueRow], probe: str) -> list[Classes]:
        """Return the classes of `MOST_MODELS` models at most, of different contents, on any dataset of this probe set."""
        chosen = one_a_content(images_in(self._store, lines, "common", probe).models(lines))
        found = (one for line in chosen if (one := self.of(line, probe)) is not None)
        return list(islice(found, MOST_MODELS))


def _read(store: ObjectStore, identity: Identity, probe: str) -> Classes | None:
    upload = uploads.current(store, identity)
    record = uploads.record(store, upload) if upload else None
    if record is None or record.content is None:
        return None
    facts = uploads.facts(store, record)

    def loaded(product: type[Product]) -> Product | None:
        manifest = product_store.manifest(store, product, facts)
        try:
            return product_store.load(store, product, manifest) if manifest and manifest.state == "complete" else None
        except Damaged:
            return None  # repair finds it; the others are enough to judge by

    found = loaded(ClassVectors)
    if not isinstance(found, ClassVectors) or found.probe != probe:
        return None
    evaluation = loaded(Evaluation)
    recalls = tuple(one.recall for one in evaluation.classes) if isinstance(evaluation, Evaluation) else ()
    return Classes(record.content, found.vectors, found.untrained, recalls)
