"""What a similarity is judged against: the stored and the untrained layers of one probe set. Read from the bucket. Blocking.

A few models of the dataset stand for all, chosen by the digests of their contents, so that the choice is the same in
every process and one more upload changes little of it. What was read of a model is kept: products do not change.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas import keys
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors, Metric
from layerscope.schemas.products.product import Product
from layerscope.schemas.products.reference_layers import ReferenceLayers
from layerscope.stores import blobs, damage
from layerscope.stores.blobs import Damaged
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore

MOST_MODELS: Final = 24
MOST_LAYERS: Final = 400
KEPT: Final = 64

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers with their relative depth, 0..1, and their vectors (L, d); a row of zeros: not comparable."""

    subject: str
    images: int
    layers: tuple[Layer, ...]
    depths: NDArray[np.float64]
    cka: Vectors
    deconfounded: Vectors
    inputs: NDArray[np.float32] | None = None
    label_cka_of_pixels: float | None = None
    networks: NDArray[np.int64] | None = None
    """Of which untrained network each layer is, (L,); None: they are layers of one stored model."""

    def vectors(self, metric: Metric) -> Vectors:
        """Return the vectors of a metric."""
        return self.cka if metric == "cka" else self.deconfounded


@dataclass(frozen=True, slots=True)
class Population:
    """The layers of the models that stand for a dataset: stored ones, and untrained ones of their architectures."""

    stored: tuple[Layers, ...]
    untrained: tuple[Layers, ...]


class References:
    """Reads what models' layers are, and keeps the latest; safe in threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, str, str], Layers] = OrderedDict()
        self._lock = threading.Lock()

    def stored(self, line: CatalogueRow, probe: str) -> Layers | None:
        """Return the layers of a model version on this probe set; None where they are not there."""
        return self._read(line, LayerVectors, probe)

    def population(self, lines: Sequence[CatalogueRow], dataset: str, probe: str) -> Population:
        """Return the layers that stand for a dataset: of MOST_MODELS models at most, and about MOST_LAYERS of each kind."""
        stored: list[Layers] = []
        untrained: list[Layers] = []
        for line in representatives(lines, dataset):
            for found, product in ((stored, LayerVectors), (untrained, ReferenceLayers)):
                layers = self._read(line, product, probe) if _count(found) < MOST_LAYERS else None
                if layers is not None:
                    found.append(layers)
        return Population(tuple(stored), tuple(untrained))

    def _read(self, line: CatalogueRow, product: type[Product], probe: str) -> Layers | None:
        if line.content is None:
            return None
        key = (line.subject, f"{product.declared.name}/{line.content}", probe)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        identity = Identity.parse(line.subject)
        for manifest in _manifests(self._store, identity, line.content, product):
            if manifest.inputs.parts.get("probe") == probe:
                try:
                    found = _layers(self._store, manifest)
                except Damaged:
                    continue  # repair finds it; the others are enough to judge by
                with self._lock:
                    self._kept[key] = found
                    if len(self._kept) > KEPT:
                        self._kept.popitem(last=False)
                return found
        return None


def representatives(lines: Sequence[CatalogueRow], dataset: str) -> list[CatalogueRow]:
    """Return the models that stand for a dataset: of different contents, those whose digests come first."""
    return one_a_content(line for line in lines if line.subject.startswith(f"{dataset}/"))[:MOST_MODELS]


def one_a_content(lines: Iterable[CatalogueRow]) -> list[CatalogueRow]:
    """Return of each content the model whose name comes first, in the order of their digests."""
    latest_first = sorted(lines, key=lambda line: line.subject, reverse=True)
    by_content = {line.content: line for line in latest_first if line.content is not None}
    return [by_content[content] for content in sorted(by_content)]


def _count(found: Sequence[Layers]) -> int:
    return sum(len(one.layers) for one in found)


def _manifests(store: ObjectStore, identity: Identity, content: str, product: type[Product]) -> Iterator[Manifest]:
    declared = product.declared
    for one in store.list(keys.PRODUCTS, keys.manifests_of(identity, content, declared.name)):
        if one.key.endswith(".failed.json"):
            continue
        manifest = damage.read_json(store, keys.PRODUCTS, one.key, Manifest)
        if manifest is not None and manifest.state == "complete" and manifest.recipe == declared.recipe:
            yield manifest


def _layers(store: ObjectStore, manifest: Manifest) -> Layers:
    data = json.loads(blobs.get(store, manifest.file(DATA).sha256))

    def array(name: str) -> Vectors:
        content = blobs.get(store, manifest.file(f"{name}.npy").sha256)
        return np.asarray(np.load(BytesIO(content), allow_pickle=False), np.float32)

    untrained = manifest.product == ReferenceLayers.declared.name
    rows = [row["layer"] for row in data["layers"]] if untrained else data["layers"]
    last = max(len(rows) - 1, 1)
    depths = [row["depth"] for row in data["layers"]] if untrained else [at / last for at in range(len(rows))]
    return Layers(
        subject=manifest.identity.subject,
        images=int(data["images"]),
        layers=tuple(Layer.model_validate(row) for row in rows),
        depths=np.asarray(depths, np.float64),
        cka=array("cka"),
        deconfounded=array("deconfounded"),
        inputs=array("inputs")[0] if untrained else None,
        networks=np.asarray([row["network"] for row in data["layers"]], np.int64) if untrained else None,
        label_cka_of_pixels=data["label_cka_of_pixels"] if untrained else None,
    )
