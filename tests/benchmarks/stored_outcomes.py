"""Thousands of settled model versions, written as the functions write them but with made-up content."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of, inputs_of, manifest_key
from layerscope.schemas.digests import sha256
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import File, Manifest, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.stores import catalogue, datasets, uploads
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore
from tests.functions.bucket import DATASET, add_dataset

FILES = 3


def fill(store: ObjectStore, models: int) -> Iterator[tuple[str, bytes]]:
    """Store the uploads; yield key and bytes of all that lies in the bucket `products` of them."""
    add_dataset(store)
    description = datasets.describe(store, DATASET)
    for number in range(models):
        identity = Identity(DATASET, f"net{number // 10}", str(number % 10))
        weights = f"weights {number}".encode()
        store.put(keys.MODELS, keys.upload(identity), weights)
        upload = uploads.by_identity(store.list(keys.MODELS, f"{identity.subject}."))[0][identity]
        who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
        content = sha256(weights)
        yield keys.blob(content), weights
        record = UploadRecord(
            **who,
            recipe=UploadRecord.RECIPE,
            etag=upload.etag,
            size=upload.size,
            state="admitted",
            content=content,
            content_size=len(weights),
        )
        yield upload.record_key, record.to_bytes()
        facts = Facts(identity, content, description, {})
        for product in declared_products():
            yield from _product(facts, product.declared.name, number)


def _product(facts: Facts, name: str, number: int) -> Iterator[tuple[str, bytes]]:
    (product,) = (one for one in declared_products() if one.declared.name == name)
    files = []
    for file in range(FILES):
        content = f"{number} {name} {file}".encode()
        files.append(
            File(name=f"{file}.npy", sha256=sha256(content), size=len(content), type="application/octet-stream")
        )
        yield keys.blob(files[-1].sha256), content
    identity = facts.identity
    manifest = Manifest(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        content=facts.content,
        product=name,
        recipe=product.declared.recipe,
        address=address_of(product, facts),
        parameters=dict(product.declared.parameters),
        inputs=inputs_of(product, facts),
        state="complete",
        headline={"accuracy": 0.9, "images": 10_000},
        files=tuple(files),
        software={"python": "3.11.7", "torch": "2.10.0", "numpy": "2.3.0"},
        device="cpu",
        seconds=1.5,
        event="e" * 32,
    )
    yield manifest_key(product, facts), manifest.to_bytes()


def row_of(identity: Identity, fingerprint: str) -> CatalogueRow:
    """Return the row that `index` would have written."""
    return CatalogueRow(
        subject=identity.subject,
        state="complete",
        uploaded="2026-01-01T00:00:00.000Z",
        content="c" * 64,
        test_accuracy=0.9,
        refusal=None,
        vectors="v" * 32,
        rows=0,
        fingerprint=fingerprint,
    )


def rows(store: ObjectStore) -> Iterator[CatalogueRow]:
    """Return the catalogue of all that is stored."""
    description = datasets.describe(store, DATASET)
    current, _ = uploads.by_identity(store.list(keys.MODELS))
    for identity, upload in current.items():
        record = uploads.record(store, upload)
        assert record is not None and record.content is not None
        facts = Facts(identity, record.content, description, {})
        listed = catalogue.listing(store, identity)
        yield row_of(identity, catalogue.fingerprint(upload, facts, listed))
