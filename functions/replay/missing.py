"""The selector *missing*: what should be in the bucket and is not, computed from facts alone.

A new recipe, a changed dataset, a late sidecar, a lost notification and a crash are all that one case: nothing lies at
the address where something should.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, manifest_key
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.events import EventData, ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity, subject_of_key
from layerscope.schemas.manifests import UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product
from layerscope.stores import catalogue, datasets, product_store
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.uploads import Upload, by_identity, facts_with, record
from layerscope.stores.vector_store import VectorStore


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which function should look, at whom, and the data that says so."""

    function: str
    subject: str
    data: EventData


@dataclass(slots=True)
class KnownOutcomes:
    """Outcomes read before; they never change, so that a round reads only what is new."""

    records: dict[str, UploadRecord] = field(default_factory=dict)
    refused: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stock:
    """The keys of outcomes and failures in the bucket, taken once for a round."""

    listed: Collection[str]
    ask_failed: bool

    def lacks(self, outcome: str) -> bool:
        """Tell whether an outcome is not there, nor known to have failed."""
        return outcome not in self.listed and (self.ask_failed or keys.failure(outcome) not in self.listed)


def missing(
    store: ObjectStore, vectors: VectorStore, known: KnownOutcomes, *, ask_failed: bool = False
) -> Iterator[Ask]:
    """Yield a request for each outcome that should be there and is not, and for each model whose rows are stale.

    Args:
        known: what earlier rounds have read.
        ask_failed: ask also for what has failed before.
    """
    prefixes = (keys.UPLOADS, keys.MANIFESTS)
    stock = Stock({one.key for prefix in prefixes for one in store.list(keys.PRODUCTS, prefix)}, ask_failed)
    current, misnamed = by_identity(store.list(keys.MODELS))
    for one in misnamed:
        if stock.lacks(keys.refused_key(one.key)):
            yield _upload(one.key, one.etag, one.size)
    descriptions: dict[str, DatasetDescription | None] = {}
    facts = {identity: _facts(store, upload, stock, known, descriptions) for identity, upload in current.items()}
    for identity, upload in current.items():
        if stock.lacks(upload.record_key):
            yield _upload(upload.key, upload.etag, upload.size)
        elif (known_facts := facts[identity]) is not None:
            yield from (_request(identity, one.declared.name) for one in _lacking(store, known_facts, stock, known))
    for identity in catalogue.stale(vectors.catalogue(), current, facts, stock.listed):
        yield _request(identity, "index")


def _facts(
    store: ObjectStore,
    upload: Upload,
    stock: Stock,
    known: KnownOutcomes,
    descriptions: dict[str, DatasetDescription | None],
) -> Facts | None:
    """Return what the products of an admitted upload depend on; None where it was refused or has failed."""
    key = upload.record_key
    if key not in stock.listed:
        return None
    if key not in known.records and (found := record(store, upload)) is not None:
        known.records[key] = found
    admitted = known.records.get(key)
    if admitted is None or admitted.content is None:
        return None
    name = upload.identity.dataset
    if name not in descriptions:
        descriptions[name] = datasets.describe(store, name)
    return facts_with(admitted, admitted.content, descriptions[name])


def _lacking(store: ObjectStore, facts: Facts, stock: Stock, known: KnownOutcomes) -> Iterator[type[Product]]:
    """Yield the products of a model that are not there although all that they stand on is."""
    for product in declared_products():
        if stock.lacks(manifest_key(product, facts)) and all(
            manifest_key(one, facts) in stock.listed and not _is_refused(store, one, facts, known)
            for one in product.declared.inputs
        ):
            yield product


def _is_refused(store: ObjectStore, product: type[Product], facts: Facts, known: KnownOutcomes) -> bool:
    key = manifest_key(product, facts)
    if key not in known.refused:
        found = product_store.manifest(store, product, facts)
        if found is None:
            return True  # gone since the listing; the next round sees it as it then is
        known.refused[key] = found.state == "refused"
    return known.refused[key]


def _upload(key: str, etag: str, size: int) -> Ask:
    data = ModelUploaded(bucket=keys.MODELS, key=key, etag=etag, size=size, origin="missing")
    return Ask("admit", subject_of_key(key), data)


def _request(identity: Identity, function: str) -> Ask:
    data = ProductRequested(
        dataset=identity.dataset, model=identity.model, version=identity.version, product=function, reason="missing"
    )
    return Ask(function, identity.subject, data)
