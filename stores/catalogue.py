"""Where each model version stands: what the bucket says of its upload and products, and what the index should say then.

`index` writes it, `query` shows it, and `replay` compares the two by fingerprint, which needs no more than a listing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, manifest_keys
from layerscope.schemas.digests import digest
from layerscope.schemas.figures import shortfall
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure, Manifest, Refusal, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.class_vectors import ClassVectors
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.schemas.products.product import Product
from layerscope.schemas.queries import ProductState
from layerscope.stores import product_store, uploads
from layerscope.stores.index_rows import collection_name
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.uploads import Upload

NOT_GIVEN: Final = frozenset({"no-history", "no-conv-layer"})
"""Codes of refusals that are no fault: what the product would tell of was not uploaded, or is no part of the model."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one product of a model came to; `manifest` is there when it is complete, or refused in its own right."""

    state: ProductState
    manifest: Manifest | None = None
    refusal: Refusal | None = None
    failure: Failure | None = None

    @property
    def not_given(self) -> bool:
        """Tell whether it was refused for want of what a model may do without."""
        return self.refusal is not None and self.refusal.code in NOT_GIVEN


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model version stands: its upload, what that came to, and the outcome of each product."""

    upload: Upload
    record: UploadRecord | None
    failure: Failure | None
    facts: Facts | None
    outcomes: Mapping[str, Outcome]

    @property
    def state(self) -> ProductState:
        """Return the state of the whole: computing while anything is, then failed if anything did, else complete."""
        if self.record is None:
            return "failed" if self.failure else "computing"
        if self.record.state == "refused":
            return "refused"
        states = {one.state for one in self.outcomes.values()}
        return "computing" if "computing" in states else "failed" if "failed" in states else "complete"

    @property
    def shortfall(self) -> str | None:
        """Return what a user lacks, as of `figures.shortfall`."""
        return shortfall(*self.products, None if self.facts is None else self.facts.dataset is not None)

    @property
    def products(self) -> tuple[int, int]:
        """Return how many products are there, of how many that the model could have."""
        meant = [one for one in self.outcomes.values() if not one.not_given]
        return sum(one.state == "complete" for one in meant), len(meant)


@dataclass(frozen=True, slots=True)
class Present:
    """A model version as the bucket has it: the fingerprint, and a digest of what lies under every key that it names."""

    fingerprint: str
    objects: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the bucket finds of a model version: its upload, what that came to, and all of its products' objects."""

    upload: Upload
    record: UploadRecord | None
    facts: Facts | None
    listed: Mapping[str, Object]
    places: Mapping[str, str]
    """The keys of the products' manifests, by name; none without facts."""
    present: Present


def seen(store: ObjectStore, identity: Identity) -> Seen | None:
    """Look at a model version; None where there is no upload of that name."""
    # The listing comes first: what appears after it makes another look differ.
    listed = listing(store, identity)
    upload = uploads.current(store, identity)
    if upload is None:
        return None
    record = uploads.listed_record(store, upload, listed)
    facts = uploads.facts(store, record) if record and record.content else None
    objects = digest({"upload": upload.etag, "listed": {key: one.etag for key, one in sorted(listed.items())}})
    places = _places(facts)
    return Seen(upload, record, facts, listed, places, Present(fingerprint_of(upload, places, listed), objects))


def present(store: ObjectStore, identity: Identity) -> Present | None:
    """Return what the bucket has of a model version now; None where there is no such upload."""
    found = seen(store, identity)
    return found.present if found else None


def listing(store: ObjectStore, identity: Identity) -> dict[str, Object]:
    """Return what there is in the bucket of products under a model version, by key; `fingerprint` asks for the keys."""
    prefixes = (keys.uploads_of(identity), keys.manifests_of(identity))
    return {one.key: one for prefix in prefixes for one in store.list(keys.PRODUCTS, prefix)}


def standing(store: ObjectStore, identity: Identity) -> Standing | None:
    """Return where a model version stands; None where there is no upload of that name."""
    found = seen(store, identity)
    return standing_of(store, found) if found else None


def standing_of(store: ObjectStore, found: Seen) -> Standing:
    """Return where a model version stood when it was looked at."""
    upload, record, facts = found.upload, found.record, found.facts
    if record is None:
        failed = product_store.listed_failure(store, upload.record_key, found.listed)
        return Standing(upload, None, failed, None, {})
    if facts is None:
        return Standing(upload, record, None, None, {})
    outcomes: dict[str, Outcome] = {}
    for product in declared_products():
        outcomes[product.declared.name] = _outcome(store, product, outcomes, found)
    return Standing(upload, record, None, facts, outcomes)


def _outcome(store: ObjectStore, product: type[Product], earlier: Mapping[str, Outcome], seen: Seen) -> Outcome:
    key = seen.places[product.declared.name]
    found = product_store.listed_manifest(store, key, seen.listed)
    if found is not None:
        return Outcome(found.state, manifest=found, refusal=found.refusal)
    for one in product.declared.stands_on:
        if earlier[one.declared.name].state == "refused" and one in product.declared.inputs:
            message = f"It is made from {one.declared.name}, which this model cannot have."
            return Outcome("refused", refusal=Refusal(code="refused-input", message=message))
        if earlier[one.declared.name].state == "failed":
            return Outcome("failed", failure=earlier[one.declared.name].failure)
    failed = product_store.listed_failure(store, key, seen.listed)
    return Outcome("failed", failure=failed) if failed else Outcome("computing")


def fingerprint(upload: Upload, facts: Facts | None, listed: Collection[str]) -> str:
    """Return a digest of everything that a model's rows depend on.

    Args:
        upload: the current upload.
        facts: of its admitted content; None where it is not admitted.
        listed: the keys that exist in the bucket of products; those of this model are enough.
    """
    return fingerprint_of(upload, _places(facts), listed)


def _places(facts: Facts | None) -> dict[str, str]:
    return manifest_keys(declared_products(), facts) if facts else {}


def fingerprint_of(upload: Upload, places: Mapping[str, str], listed: Collection[str]) -> str:
    """Return the same where the keys of the products' manifests are known, by the products' names."""
    places = {"upload": upload.record_key, **places}
    exist = {name: [key, key in listed, keys.failure(key) in listed] for name, key in places.items()}
    return digest({"key": upload.key, "modified": upload.modified.isoformat(), "outcomes": exist})


def vectors_from(facts: Facts, vectors: Sequence[Manifest], test_accuracy: float | None) -> str:
    """Return a digest of what a model's rows are made from: the manifests of its vectors, and its accuracy."""
    # Another making at the same address may have other files.
    made = {one.product: [one.address, [file.sha256 for file in one.files]] for one in vectors}
    return digest({"content": facts.content, "vectors": made, "test_accuracy": test_accuracy})


def class_collection(probe: str) -> str:
    """Return the collection of the classes that are compared on the common probe set `probe`, by its SHA-256."""
    return collection_name("classes", probe, ClassVectors.declared.recipe)


def uid(identity: Identity, address: str, position: int) -> str:
    """Return the key of the row of a model's layer or class, counted from 0 in the order of its product.

    The address of that product is part of it, so that a row of an earlier upload is never taken for a present one.
    """
    return f"{identity.subject}#{address}#{position:05d}"


def architecture_of(layers: Iterable[Layer]) -> str:
    """Return a digest of a model's layers in order, by their types and the shapes of their responses, not their names."""
    return digest([[layer.type, layer.call, list(layer.shape)] for layer in layers])
