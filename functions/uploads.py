"""What lies in the bucket `models`, and what each upload came to: where every function looks before it believes an event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from functions import datasets
from functions.errors import NotFound
from functions.object_store import Object, ObjectStore
from schemas import keys
from schemas.addresses import Facts
from schemas.identity import Identity, KeyRefused, identify
from schemas.manifests import UploadRecord


@dataclass(frozen=True, slots=True)
class Upload:
    """The object that is current for an identity: of several keys the newest, ties by key; with its sidecars' ETags."""

    identity: Identity
    key: str
    etag: str
    size: int
    modified: datetime
    sidecars: dict[str, str] = field(default_factory=dict)

    @property
    def record_key(self) -> str:
        """Return where it is, or should be, written what this upload came to."""
        return keys.upload_record(self.identity, UploadRecord.RECIPE, self.etag, self.sidecars)


def by_identity(objects: Iterable[Object]) -> tuple[dict[Identity, Upload], list[Object]]:
    """Sort the objects of the bucket `models` into current uploads, and those whose keys break the rule."""
    models: dict[Identity, Object] = {}
    sidecars: dict[Identity, dict[str, str]] = {}
    refused = []
    for one in objects:
        try:
            named = identify(one.key)
        except KeyRefused:
            refused.append(one)
            continue
        if named.sidecar:
            sidecars.setdefault(named.identity, {})[named.sidecar] = one.etag
        elif (other := models.get(named.identity)) is None or (other.modified, other.key) < (one.modified, one.key):
            models[named.identity] = one
    uploads = {
        identity: Upload(identity, one.key, one.etag, one.size, one.modified, sidecars.get(identity, {}))
        for identity, one in models.items()
    }
    return uploads, refused


def current(store: ObjectStore, identity: Identity) -> Upload | None:
    """Return the upload that the live objects make current for `identity`; None where there is none."""
    listed = [one for prefix in keys.upload_prefixes(identity) for one in store.list(keys.MODELS, prefix)]
    return by_identity(listed)[0].get(identity)


def record(store: ObjectStore, upload: Upload) -> UploadRecord | None:
    """Return what this upload came to; None while it has not been read by the present code."""
    try:
        return UploadRecord.from_bytes(store.get(keys.PRODUCTS, upload.record_key))
    except NotFound:
        return None


def facts(store: ObjectStore, admitted: UploadRecord) -> Facts:
    """Return all that the addresses of an admitted upload's products depend on."""
    if admitted.content is None:
        raise ValueError(f"the upload {admitted.identity.subject} was refused, and has no products")
    description = datasets.describe(store, admitted.dataset)
    return Facts(admitted.identity, admitted.content, description, admitted.sidecars)
