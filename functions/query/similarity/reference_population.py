"""What a similarity is judged against: the stored and the untrained layers of one probe set. Read from the bucket. Blocking.

A few models stand for all, chosen by the digests of their contents, so that the choice is the same in
every process and one more upload changes little of it. What was read of a model is kept: products do not change.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.representation.vectors import classic
from layerscope.functions.query.similarity.probe_sets import ProbeImages, ProbeSet
from layerscope.schemas import keys
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import Debiased, Layer, Metric
from layerscope.schemas.products.product import Product
from layerscope.stores import blobs, damage
from layerscope.stores.blobs import Damaged
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore

MOST_MODELS: Final = 24
MOST_LAYERS: Final = 400
FEWEST_MODELS: Final = 12
"""Of the stored ones, however many layers they have: a model is ranked among ten others, itself and the asked one left out."""
MOST_BYTES: Final = 192 * 2**20
"""Of the latest layers of models and of untrained networks, over the probe set of a dataset and over a common one: of a
small model both take 10 MB."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers with their relative depth, 0..1, and by metric their vectors (L, d); a row of zeros: not comparable."""

    subject: str
    images: int
    layers: tuple[Layer, ...]
    depths: NDArray[np.float64]
    by_metric: Mapping[Metric, Vectors]
    inputs: NDArray[np.float32] | None = None
    label_cka_of_pixels: float | None = None
    networks: NDArray[np.int64] | None = None
    """Of which untrained network each layer is, (L,); None: they are layers of one stored model."""
    positions: NDArray[np.int64] | None = None
    """Which of its network's layers each is, (L,); None: they are all layers of one."""
    input_gram: NDArray[np.float32] | None = None
    """The upper triangle (n(n+1)/2,) of the Gram of the images themselves, where there are `inputs`."""
    content: str | None = None
    """The digest of the model's content: copies have the same untrained networks."""

    def vectors(self, metric: Metric) -> Vectors:
        """Return the vectors of a metric."""
        return self.by_metric[metric]

    @property
    def size(self) -> int:
        """Return about how many bytes of memory they take."""
        return sum(vectors.nbytes for vectors in self.by_metric.values())


@dataclass(frozen=True, slots=True)
class Population:
    """The layers of the models that stand for all: stored ones, and untrained ones of their architectures."""

    stored: tuple[Layers, ...]
    untrained: tuple[Layers, ...]


class References:
    """Reads what models' layers are, and keeps the latest; safe in threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, str, str, bool], Layers] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def stored(self, line: CatalogueRow, over: ProbeImages) -> Layers | None:
        """Return the layers of a model version over these images; None where they are not there."""
        return self._read(line, over, untrained=False)

    def untrained(self, line: CatalogueRow, over: ProbeImages) -> Layers | None:
        """Return the untrained networks that were made of a model version; None where they are not there."""
        return self._read(line, over, untrained=True)

    def population(self, lines: Sequence[CatalogueRow], over: ProbeImages) -> Population:
        """Return the layers that stand for all over these images: of MOST_MODELS at most, about MOST_LAYERS of each kind.

        Of stored models there are FEWEST_MODELS at least, if as many are there.
        """
        stored: list[Layers] = []
        untrained: list[Layers] = []
        for line in representatives(over.models(lines)):
            for found, drawn, fewest in ((stored, False, FEWEST_MODELS), (untrained, True, 0)):
                full = _count(found) >= MOST_LAYERS and len(found) >= fewest
                layers = None if full else self._read(line, over, untrained=drawn)
                if layers is not None:
                    found.append(layers)
        return Population(tuple(stored), tuple(untrained))

    def _read(self, line: CatalogueRow, over: ProbeImages, *, untrained: bool) -> Layers | None:
        probe_set, identity = over.probe_set, Identity.parse(line.subject)
        given = over.given.get(identity.dataset)
        if line.content is None or given is None:
            return None
        product = probe_set.untrained if untrained else probe_set.product
        key = (line.subject, f"{product.declared.name}/{line.content}", given, untrained)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        for manifest in _manifests(self._store, identity, line.content, product):
            if manifest.inputs.parts.get(probe_set.part) != given:
                continue
            try:
                data = json.loads(blobs.get(self._store, manifest.file(DATA).sha256))
                found = (
                    _untrained(self._store, manifest, data, probe_set)
                    if untrained
                    else _stored(self._store, manifest, data)
                )
            except Damaged:
                continue  # repair finds it; the others are enough to judge by
            self._keep(key, found)
            return found
        return None

    def _keep(self, key: tuple[str, str, str, bool], found: Layers) -> None:
        with self._lock:
            if key in self._kept:  # another thread has read it meanwhile
                return
            self._kept[key] = found
            self._bytes += found.size
            while self._bytes > MOST_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].size


def representatives(lines: Iterable[CatalogueRow]) -> list[CatalogueRow]:
    """Return the models that stand for these: of different contents, those whose digests come first."""
    return one_a_content(lines)[:MOST_MODELS]


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


def _stored(store: ObjectStore, manifest: Manifest, data: Mapping[str, Any]) -> Layers:
    rows = data["layers"]
    last = max(len(rows) - 1, 1)
    return Layers(
        subject=manifest.identity.subject,
        images=int(data["images"]),
        layers=tuple(Layer.model_validate(row) for row in rows),
        depths=np.arange(len(rows)) / last,
        by_metric=_vectors(store, manifest, rows, int(data["images"]), ""),
    )


def _untrained(store: ObjectStore, manifest: Manifest, data: Mapping[str, Any], probe_set: ProbeSet) -> Layers:
    lines, images = data[probe_set.lines], int(data["images"])
    rows = [one["layer"] for one in lines]
    return Layers(
        subject=manifest.identity.subject,
        images=images,
        layers=tuple(Layer.model_validate(row) for row in rows),
        depths=np.asarray([one["depth"] for one in lines], np.float64),
        by_metric=_vectors(store, manifest, rows, images, probe_set.prefix),
        inputs=_array(store, manifest, "inputs")[0],
        input_gram=_array(store, manifest, "input_gram")[0],
        label_cka_of_pixels=data.get("label_cka_of_pixels"),
        networks=np.asarray([one["network"] for one in lines], np.int64),
        positions=np.asarray([one["position"] for one in lines], np.int64),
        content=manifest.content,
    )


def _vectors(
    store: ObjectStore, manifest: Manifest, rows: Sequence[Mapping[str, Any]], images: int, prefix: str
) -> Mapping[Metric, Vectors]:
    ok = np.array([row["state"] == "ok" for row in rows], np.bool_)
    grams = np.where(ok[:, None], _array(store, manifest, f"{prefix}grams"), 0)
    return {
        **{metric: _array(store, manifest, f"{prefix}{metric}") for metric in get_args(Debiased)},
        "classic": classic(grams, images).astype(np.float32),
    }


def _array(store: ObjectStore, manifest: Manifest, name: str) -> Vectors:
    content = blobs.get(store, manifest.file(f"{name}.npy").sha256)
    return np.asarray(np.load(BytesIO(content), allow_pickle=False), np.float32)
