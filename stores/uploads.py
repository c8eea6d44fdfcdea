"""What lies in the bucket `models`, and what each upload came to: where every function looks before it believes an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Changed, Ignored, NotFound, Refused, Unavailable
from layerscope.schemas.identity import Identity, KeyRefused, UploadKey, identify, is_folder_marker
from layerscope.schemas.manifests import File, UploadRecord
from layerscope.stores import blobs, damage, datasets
from layerscope.stores.object_store import Object, ObjectStore

SIDECAR_LIMIT: Final = 16 * 1024**2
DECIDING: Final = ("architecture",)
"""Those of an object's metadata that decide what it is read as; they are in no list, and in no ETag."""
LOOKS: Final = 5


@dataclass(frozen=True, slots=True)
class Upload:
    """The object that is current for an identity: of several keys the newest, ties by key; with its sidecars.

    `given` are its deciding metadata, which only a look at the object itself shows.
    """

    identity: Identity
    key: str
    etag: str
    size: int
    modified: datetime
    sidecar_objects: dict[str, Object] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def sidecars(self) -> dict[str, str]:
        """Return the ETag of each sidecar, by its kind."""
        return {kind: one.etag for kind, one in self.sidecar_objects.items()}

    @property
    def record_key(self) -> str:
        """Return where it is, or should be, written what this upload came to."""
        return keys.upload_record(self.identity, UploadRecord.RECIPE, self.etag, self.sidecars, self.given)


def by_identity(
    objects: Iterable[Object], names: dict[str, UploadKey] | None = None
) -> tuple[dict[Identity, Upload], list[Object]]:
    """Sort the objects of the bucket `models` into current uploads, and those whose keys break the rule.

    `names` are what keys were found to name before; those of new keys are added.
    """
    names = {} if names is None else names
    models: dict[Identity, Object] = {}
    sidecars: dict[Identity, dict[str, Object]] = {}
    refused = []
    for one in objects:
        if is_folder_marker(one.key, one.size):
            continue
        try:
            named = names.get(one.key) or names.setdefault(one.key, identify(one.key))
        except KeyRefused:
            refused.append(one)
            continue
        if named.sidecar:
            lying = sidecars.setdefault(named.identity, {})
            lying[named.sidecar] = _newer(lying.get(named.sidecar), one)
        else:
            models[named.identity] = _newer(models.get(named.identity), one)
    uploads = {
        identity: Upload(identity, one.key, one.etag, one.size, one.modified, sidecars.get(identity, {}))
        for identity, one in models.items()
    }
    return uploads, refused


def _newer(known: Object | None, other: Object) -> Object:
    return other if known is None or (known.modified, known.key) < (other.modified, other.key) else known


def current(store: ObjectStore, identity: Identity) -> Upload | None:
    """Return the upload that the live objects make current for `identity`; None where there is none."""
    for _ in range(LOOKS):
        listed = [one for prefix in keys.upload_prefixes(identity) for one in store.list(keys.MODELS, prefix)]
        upload = by_identity(listed)[0].get(identity)
        if upload is None:
            return None
        described = store.head(keys.MODELS, upload.key)
        if described is not None and described.etag == upload.etag:
            return replace(upload, given=deciding(described))
    raise Unavailable(f"the uploads of {identity.subject} are being changed all the time")


def deciding(described: Object) -> dict[str, str]:
    """Return those of an object's metadata that decide what it is read as."""
    return {name: described.metadata[name] for name in DECIDING if described.metadata.get(name)}


def record(store: ObjectStore, upload: Upload) -> UploadRecord | None:
    """Return what this upload came to; None while it has not been read by the present code."""
    return damage.read_json(store, keys.PRODUCTS, upload.record_key, UploadRecord, lambda found: is_of(found, upload))


def listed_record(store: ObjectStore, upload: Upload, listed: Mapping[str, Object]) -> UploadRecord | None:
    """Return the same where the bucket `products` has just been listed: `listed` are its objects, by key."""
    if upload.record_key not in listed:
        return None
    place = listed[upload.record_key]
    return damage.read_listed(store, keys.PRODUCTS, place, UploadRecord, lambda found: is_of(found, upload))


def is_of(found: UploadRecord, upload: Upload) -> bool:
    """Tell whether a record at an upload's key is of that upload.

    Earlier ones of uploads with deciding metadata lie at the key of an upload that has none; they are not of that one.
    """
    if (found.identity, found.etag) != (upload.identity, upload.etag):
        return False
    return bool(upload.given) or found.architecture_given is None or "architecture" in found.sidecars


def earlier_record(store: ObjectStore, upload: Upload, architecture: str | None) -> UploadRecord | None:
    """Return the record of an upload with deciding metadata that an earlier version stored without them in its key.

    None where there is none, or where it was read as another `architecture`.
    """
    if not upload.given:
        return None
    plain = replace(upload, given={})
    found = damage.read_json(store, keys.PRODUCTS, plain.record_key, UploadRecord)
    return found if found is not None and found.architecture_given == architecture else None


def is_whole(store: ObjectStore, admitted: UploadRecord) -> bool:
    """Tell whether the bytes that a record names are there with their sizes."""
    if admitted.content is None:
        return True
    names = [File(name="content", sha256=admitted.content, size=admitted.content_size, type="")]
    there = store.head(keys.PRODUCTS, keys.blob(admitted.training)) if admitted.training else None
    return blobs.are_stored(store, names) and (admitted.training is None or bool(there and there.size))


def facts(store: ObjectStore, admitted: UploadRecord) -> Facts:
    """Return all that the addresses of an admitted upload's products depend on."""
    if admitted.content is None:
        raise ValueError(f"the upload {admitted.identity.subject} was refused, and has no products")
    return facts_with(admitted, admitted.content, datasets.describe(store, admitted.dataset))


def facts_with(admitted: UploadRecord, content: str, description: DatasetDescription | None) -> Facts:
    """Return the same where the dataset's description is known; the figures found in the file count as a sidecar."""
    found = {"checkpoint": admitted.training} if admitted.training else {}
    return Facts(admitted.identity, content, description, admitted.sidecars | found)


def sidecars(store: ObjectStore, facts: Facts, kinds: Iterable[str]) -> dict[str, bytes]:
    """Return the content of those sidecars that the facts name, by kind.

    Raises:
        Refused: there is none of these kinds (`no-history`), or one is too large (`history-too-large`).
        Ignored: one of them has changed meanwhile.
        Damaged: the figures found in the file are lost, or are something else.
    """
    subject, wanted = facts.identity.subject, [kind for kind in kinds if kind in facts.sidecars]
    if not wanted:
        raise Refused(
            "no-history",
            f"Nothing beside {subject} tells how it was trained.",
            f'layerscope.upload(model, "{subject}", history={{"train_loss": [0.9, 0.4], "test_accuracy": [0.7, 0.9]}})',
        )
    upload = current(store, facts.identity)
    lying = upload.sidecar_objects if upload else {}
    return {
        kind: blobs.get(store, facts.sidecars[kind])
        if kind == "checkpoint"
        else _content(store, lying.get(kind), facts.sidecars[kind])
        for kind in wanted
    }


def _content(store: ObjectStore, sidecar: Object | None, etag: str) -> bytes:
    if sidecar is None or sidecar.etag != etag:
        raise Ignored("a sidecar of the model was superseded; its event will bring this one back")
    if sidecar.size > SIDECAR_LIMIT:
        raise Refused(
            "history-too-large",
            f"{sidecar.key} has {sidecar.size:,} bytes; what was logged in training may have {SIDECAR_LIMIT:,}.",
            "log once an epoch, or export only the losses and accuracies",
        )
    try:
        return store.get(keys.MODELS, sidecar.key, etag=etag)
    except (Changed, NotFound) as error:
        raise Ignored(f"{sidecar.key} was superseded while it was read") from error
