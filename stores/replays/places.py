"""Where each outcome of a model stands: there, refused, missing or failed; and why what is not there is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, manifest_key
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import NotFound
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product
from layerscope.stores import datasets, product_store, uploads
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.replays.stock import Stock
from layerscope.stores.uploads import Upload

Standing = Literal["there", "refused", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one outcome should be, and how it stands; `newest` is what is stored of it at whichever address."""

    identity: Identity
    function: str
    outcome: str
    standing: Standing
    reason: str
    uploaded: datetime
    stands_on: tuple[str, ...] = ()
    newest: Object | None = None
    failure: Object | None = None
    key: str = ""


class Places:
    """Finds the places of model versions; datasets and refusals are read once."""

    def __init__(self, store: ObjectStore, stock: Stock) -> None:
        self._store = store
        self._stock = stock
        self._datasets: dict[str, DatasetDescription | None] = {}
        self.facts: dict[Identity, Facts | None] = {}

    def of(self, upload: Upload) -> dict[str, Place]:
        """Return the places of a model's outcomes, by function; without those that a refused input rules out."""
        identity, record = upload.identity, self._record(upload)
        admit = self._admit(upload, record)
        self.facts[identity] = None
        if record is None or record.content is None:
            return {"admit": admit}
        try:
            if identity.dataset not in self._datasets:
                self._datasets[identity.dataset] = datasets.describe(self._store, identity.dataset)
        except datasets.DamagedDataset:
            return {"admit": admit}  # until the dataset is added again nothing can be said of its models' products
        facts = uploads.facts_with(record, record.content, self._datasets[identity.dataset])
        self.facts[identity] = facts
        found = {"admit": admit}
        for product in declared_products():
            place = self._product(upload, facts, product, found)
            if place is not None:
                found[product.declared.name] = place
        return found

    def _record(self, upload: Upload) -> UploadRecord | None:
        if upload.record_key not in self._stock.objects:
            return None
        try:
            return uploads.record(self._store, upload)
        except ValueError:
            return None  # it is damaged, and counts as absent

    def _admit(self, upload: Upload, record: UploadRecord | None) -> Place:
        subject, modified = upload.identity.subject, upload.modified
        newest = self._stock.newest(subject, "admit")
        failure = self._stock.failure(upload.record_key)
        here = Place(
            upload.identity, "admit", upload.record_key, "there", "", modified, (), newest, failure, upload.key
        )
        if record is not None:
            return here
        if failure is not None:
            return replace(here, standing="failed", reason=self._failure(upload.record_key))
        return replace(here, standing="missing", reason=_why_unread(newest, upload.record_key))

    def _product(
        self, upload: Upload, facts: Facts, product: type[Product], found: Mapping[str, Place]
    ) -> Place | None:
        name, outcome = product.declared.name, manifest_key(product, facts)
        subject, modified = facts.identity.subject, upload.modified
        inputs = tuple(one.declared.name for one in product.declared.inputs)
        newest, failure = self._stock.newest(subject, name), self._stock.failure(outcome)
        place = Place(facts.identity, name, outcome, "there", "", modified, inputs, newest, failure)
        if outcome in self._stock.objects:
            return place
        if any(one not in found or self._is_refused(found[one]) for one in inputs):
            return None
        if failure is not None:
            return replace(place, standing="failed", reason=self._failure(outcome))
        absent = [one for one in inputs if found[one].standing != "there"]
        return replace(place, standing="missing", reason=_why(product, facts, newest, absent))

    def _is_refused(self, place: Place) -> bool:
        if place.standing != "there":
            return False
        try:
            content = json.loads(self._store.get(keys.PRODUCTS, place.outcome))
        except (NotFound, ValueError):
            return False
        return isinstance(content, dict) and content.get("state") == "refused"

    def _failure(self, outcome: str) -> str:
        try:
            found = product_store.failure(self._store, outcome)
        except ValueError:
            found = None
        return f"failed: {found.reason}" if found else "failed"


def _why_unread(newest: Object | None, outcome: str) -> str:
    if newest is None:
        return "never read"
    if newest.key == outcome:
        return "what was written of it cannot be read"
    recipe = recipe_of(newest.key)
    if recipe is not None and recipe < UploadRecord.RECIPE:
        return f"read by recipe {recipe}, now {UploadRecord.RECIPE}"
    return "the upload, or a sidecar of it, is another one now"


def _why(product: type[Product], facts: Facts, newest: Object | None, absent: list[str]) -> str:
    if newest is not None and (recipe := recipe_of(newest.key)) is not None and recipe < product.declared.recipe:
        return f"made by recipe {recipe}, now {product.declared.recipe}"
    if absent:
        return f"stands on {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not there"
    if newest is None:
        return "never made"
    if f"/{facts.content}/" not in newest.key:
        return "the upload is another one now"
    return "what it is made from is another now: dataset, sidecars or products"


def recipe_of(key: str) -> int | None:
    """Return the recipe in the address at which an outcome is stored."""
    number = key.rpartition("/")[2].partition("-")[0].removeprefix("r")
    return int(number) if number.isdigit() else None
