"""One look at a model version: where each outcome should lie and how it stands, from a list of what lies there.

It is the one rule of what is missing: repair asks for it, and a plan of replay says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure, Manifest, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product
from layerscope.stores import damage, product_store, uploads
from layerscope.stores.catalogue import fingerprint_of
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.outcomes.known import Admitted, KnownModel, KnownOutcomes, Made, unpacked
from layerscope.stores.outcomes.places import ADMIT, Place, Seen
from layerscope.stores.outcomes.shelves import Listed, is_there
from layerscope.stores.uploads import Upload

SMALLEST: Final = 2  # bytes that JSON has
SETTLED: Final = timedelta(seconds=2)
LONGEST_REASON: Final = 200
LOST: Final = "blob lost"
RAISED: Final = "recipe raised"
PRESUMED: Final = Made(is_refused=False, files=b"")


@dataclass(slots=True)
class Look:
    """How to look.

    `is_thorough` reads each record and manifest once, and not only what decides about others; `verifies` asks for each
    blob, where a list has shown which are lost.
    """

    store: ObjectStore
    known: KnownOutcomes
    is_thorough: bool = False
    verifies: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def at(self, upload: Upload, listed: Listed) -> Seen:
        """Look at a model version, given what is listed under its name.

        Raises:
            Unavailable: the store does not answer, or not about this one.
        """
        model = self.known.of(upload.identity)
        return _Looking(self, replace(upload, given=self._given(upload, listed, model)), listed, model).seen()

    def _given(self, upload: Upload, listed: Listed, model: KnownModel) -> dict[str, str]:
        """Return the deciding metadata of an upload; the object itself is looked at where its record leaves a doubt."""
        state = (upload.key, upload.etag, upload.modified)
        if model.given is None or model.given[0] != state:
            recorded = listed.get(upload.record_key)
            if not self.is_thorough and recorded and recorded.modified > upload.modified + SETTLED:
                return dict(upload.given)
            described = self.store.head(keys.MODELS, upload.key)
            if described is None or described.etag != upload.etag:
                return dict(upload.given)  # another by now, which the next list shows
            model.given = (state, uploads.deciding(described))
        return dict(model.given[1])


@dataclass(slots=True)
class _Looking:
    """A look at one model version."""

    look: Look
    upload: Upload
    listed: Listed
    model: KnownModel
    due_at: datetime | None = None

    @property
    def identity(self) -> Identity:
        return self.upload.identity

    def seen(self) -> Seen:
        admitted = self._admitted()
        places = [self._place_of_record(admitted)]
        expected: dict[str, str] = {}
        if admitted is not None and admitted.content is not None:
            expected = self._keys(admitted, admitted.content)
            if places[0].state == "there":  # else what a product is made from is not there either
                places += self._places(expected)
        self.model.fingerprint = fingerprint_of(self.upload, expected, self.listed)
        return Seen(self.upload, places, self.model.fingerprint, self.due_at)

    def _place_of_record(self, admitted: Admitted | None) -> Place:
        there = Place(ADMIT, self.upload.record_key, "there")
        if admitted is None:
            return self._unless_failed(there, self._why_unread())
        return self._unless_failed(there, LOST) if self._has_lost(admitted.files) else there

    def _admitted(self) -> Admitted | None:
        """Return what the upload came to; None where there is no record, or none that can be read."""
        key = self.upload.record_key
        there = self.listed.get(key)
        if there is None:
            return None
        mark = f"{there.etag} {key.rpartition('/')[2]}"
        if self.model.record[0] != mark:
            read = damage.read_json(
                self.look.store, keys.PRODUCTS, key, UploadRecord, lambda found: uploads.is_of(found, self.upload)
            )
            self.model.record = (mark, Admitted.of(read) if read else None)
        return self.model.record[1]

    def _keys(self, admitted: Admitted, content: str) -> dict[str, str]:
        """Return the key of the manifest that each product should have."""
        description = self.look.known.datasets.get(self.identity.dataset, ("", None))[1]
        if self.model.facts is None or self.model.facts[0] is not admitted or self.model.facts[1] is not description:
            facts = Facts(self.identity, content, description, admitted.sidecars)
            self.model.addresses = tuple(address_of(one, facts) for one in declared_products())
            self.model.facts = (admitted, description)
        names = (one.declared.name for one in declared_products())
        addresses = zip(names, self.model.addresses, strict=True)
        return {name: keys.manifest(self.identity, content, name, address) for name, address in addresses}

    def _places(self, expected: Mapping[str, str]) -> list[Place]:
        """Return how each product stands, inputs before what stands on them."""
        places: dict[str, Place] = {}
        for product in declared_products():
            inputs = [places[one.declared.name] for one in product.declared.stands_on]
            places[product.declared.name] = self._place(product, expected[product.declared.name], inputs)
        return list(places.values())

    def _place(self, product: type[Product], key: str, inputs: Sequence[Place]) -> Place:
        name = product.declared.name
        place = Place(name, key, "there", stands_on=tuple(one.function for one in inputs))
        made = self._made(product, key)
        if made is not None and not self._has_lost(made.files):
            return replace(place, state="refused") if made.is_refused else place
        optional = {one.declared.name for one in product.declared.optional}
        settled = [one.function for one in inputs if one.state in ("refused", "ruled out")]
        if not optional.issuperset(settled):
            return replace(place, state="ruled out")
        why = LOST if made else self._why_unmade(product, key)
        if absent := [one.function for one in inputs if one.state != "there" and one.function not in settled]:
            waits = f"stands on {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not there"
            return replace(place, state="waiting", reason=why if why.startswith(RAISED) else waits)
        return self._unless_failed(place, why)

    def _made(self, product: type[Product], key: str) -> Made | None:
        """Return what the manifest at `key` says; None where there is none, or none that can be read."""
        there, name = self.listed.get(key), product.declared.name
        if there is None:
            self.model.manifests.pop(name, None)
            return None
        etag, made = self.model.manifests.get(name, ("", None))
        if etag != there.etag:
            if not self.look.is_thorough and there.size >= SMALLEST and product not in _inputs():
                return PRESUMED
            read = damage.read_json(
                self.look.store, keys.PRODUCTS, key, Manifest, lambda found: product_store.belongs(found, key)
            )
            made = Made.of(read) if read else None
            self.model.manifests[name] = (there.etag, made)
        return made

    def _unless_failed(self, place: Place, why: str) -> Place:
        """Return the place of what is not there: missing, or failed and not due again."""
        failed = self._failure(keys.failure(place.key), place.function)
        if failed is None:
            return replace(place, state="missing", reason=why)
        reason = f"failed: {failed.reason}"[:LONGEST_REASON]
        if failed.is_due(self.look.now):
            return replace(place, state="missing", reason=f"{reason}, due again")
        if failed.ask_again_at is not None and (self.due_at is None or failed.ask_again_at < self.due_at):
            self.due_at = failed.ask_again_at
        return replace(place, state="failed", reason=reason)

    def _failure(self, key: str, name: str) -> Failure | None:
        there = self.listed.get(key)
        if there is None:
            self.model.failures.pop(name, None)
            return None
        if self.model.failures.get(name, ("", None))[0] != there.etag:
            read = damage.read_json(self.look.store, keys.PRODUCTS, key, Failure)
            self.model.failures[name] = (there.etag, read)
        return self.model.failures[name][1]

    def _has_lost(self, files: bytes) -> bool:
        """Tell whether any of these blobs was lost and is still."""
        known = self.look.known
        if not self.look.verifies and not known.has_lost(files):
            return False
        for digest, size in unpacked(files):
            if self.look.verifies or digest in known.lost:
                found = self.look.store.head(keys.PRODUCTS, keys.blob(digest.hex()))
                known.lost.discard(digest)
                if not is_there(size, found.size if found else None):
                    known.lost.add(digest)
        return known.has_lost(files)

    def _why_unread(self) -> str:
        recipes = self._recipes(keys.uploads_of(self.identity))
        if self.upload.record_key in self.listed:
            return "unreadable record"
        if not recipes:
            return "never read"
        return _raised(recipes, UploadRecord.RECIPE) or "the upload, or a sidecar of it, changed"

    def _why_unmade(self, product: type[Product], key: str) -> str:
        if key in self.listed:
            return "unreadable manifest"
        recipes = self._recipes(f"{key.rpartition('/')[0]}/")
        if not recipes:
            return "never computed"
        if raised := _raised(recipes, product.declared.recipe):
            return raised
        changed = [one.declared.name for one in product.declared.stands_on]
        return f"{' or '.join(changed)} changed" if changed else f"{_read_by(product)} changed"

    def _recipes(self, folder: str) -> list[int]:
        names = [key.removeprefix(folder) for key in self.listed if key.startswith(folder)]
        found = [name[1:].partition("-")[0] for name in names if not name.endswith(".failed.json")]
        return [int(one) for one in found if one.isdecimal()]


def _raised(recipes: Sequence[int], recipe: int) -> str | None:
    return f"{RAISED} from {max(recipes)} to {recipe}" if max(recipes) < recipe else None


def _read_by(product: type[Product]) -> str:
    return "sidecar" if product.declared.sidecars else "dataset"


def _inputs() -> frozenset[type[Product]]:
    return frozenset(one for product in declared_products() for one in product.declared.stands_on)
