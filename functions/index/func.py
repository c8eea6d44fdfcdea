"""Index: the only writer to Milvus. An event tells it whose rows to look at; what they should be, the bucket says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.index.wanted_rows import COMPARED, class_rows, complete, layer_rows, line_of
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import IndexUpdated
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.class_vectors import ClassVectors
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.product import Product
from layerscope.stores import blobs, catalogue, product_store
from layerscope.stores.blobs import Damaged
from layerscope.stores.catalogue import Standing
from layerscope.stores.index_rows import CatalogueRow, LayerRow

ROUNDS = 5
GONE = "gone"


class Index(EventFunction):
    """Makes the rows of an event's model equal to what the bucket says, one event at a time."""

    def __init__(self) -> None:
        super().__init__("index")
        self._turn = asyncio.Lock()

    async def respond(self, event: CloudEvent) -> CloudEvent:
        """Update the rows, look again, and repeat where the bucket has moved meanwhile."""
        if event.type == IndexUpdated.type:
            raise Ignored("what this function says itself")
        try:
            identity = Identity.parse(event.subject)
        except ValueError as error:
            raise Ignored(f"{event.subject} names no model") from error
        async with self._turn:
            for _ in range(ROUNDS):
                fingerprint, rows = await asyncio.to_thread(self._update, identity)
                if await asyncio.to_thread(self._present, identity) == fingerprint:
                    break
            await self.services.cache.bump()
        who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
        data = IndexUpdated(**who, rows=rows, fingerprint=fingerprint)
        return compose(data, source="/functions/index", subject=event.subject, cause=event)

    def _update(self, identity: Identity) -> tuple[str, int]:
        """Write the rows of a model; return the fingerprint of what they say, and how many rows it has besides."""
        store, vectors = self.services.store, self.services.vectors
        # The listing comes first: what appears after it makes the fingerprint differ when it is looked at again.
        listed = catalogue.listing(store, identity)
        standing = catalogue.standing(store, identity)
        if standing is None:
            vectors.replace(identity.subject, {}, None)
            return GONE, 0
        line = line_of(standing, catalogue.fingerprint(standing.upload, standing.facts, listed))
        before = vectors.line(identity.subject)
        if before is not None and before.vectors == line.vectors:
            line = replace(line, rows=before.rows)
            if before != line:
                vectors.replace(identity.subject, None, line)
        else:
            rows = self._rows(standing, line)
            line = replace(line, rows=sum(len(group) for group in rows.values()))
            vectors.replace(identity.subject, rows, line)
        return line.fingerprint, line.rows

    def _rows(self, standing: Standing, line: CatalogueRow) -> Mapping[str, Sequence[LayerRow]]:
        """Return the rows of layers and classes that a model should have."""
        found = complete(standing)
        if standing.facts is None:
            return {}
        layers, classes = (self._loaded(product, found.get(product.declared.name)) for product in COMPARED)
        rows: dict[str, Sequence[LayerRow]] = {}
        if isinstance(layers, LayerVectors):
            rows |= layer_rows(standing.facts, layers, line.test_accuracy)
        if isinstance(classes, ClassVectors):
            of_layers = layers if isinstance(layers, LayerVectors) else None
            rows |= class_rows(standing.facts, classes, line.test_accuracy, of_layers)
        return rows

    def _loaded(self, product: type[Product], found: Manifest | None) -> Product | None:
        try:
            return product_store.load(self.services.store, product, found) if found else None
        except Damaged as damaged:
            blobs.set_aside(self.services.store, damaged.sha256)
            raise Ignored(f"{damaged}; they are made again, and their event will bring this one back") from damaged

    def _present(self, identity: Identity) -> str:
        return catalogue.present_fingerprint(self.services.store, identity) or GONE


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Index()
