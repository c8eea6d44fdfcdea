"""Admit: an upload is read once, in the worker, and stored in the safe form; no other function touches an upload."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import time
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from layerscope.events.cloudevent import CloudEvent, compose, read
from layerscope.functions.admit.lenders import lenders, named
from layerscope.functions.admit.reader import Given, SafeForm, to_safe_form, warm
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.computation import software
from layerscope.functions.runtime.handler import WorkingFunction
from layerscope.functions.runtime.outcomes import count
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.schemas import keys
from layerscope.schemas.digests import canonical_json, sha256
from layerscope.schemas.errors import Changed, Ignored, NotFound, Refused, WorkFailed
from layerscope.schemas.events import ModelAdmitted, ModelRefused, ModelUploaded
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.identity import KeyRefused, identify, is_folder_marker
from layerscope.schemas.manifests import Refusal, RefusedKey, UploadRecord
from layerscope.stores import blobs, damage, datasets, uploads
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.uploads import Upload

UPLOAD_LIMIT = 1024**3
BLOCKS_LIMIT = 1024**2


class Admit(WorkingFunction):
    """Answers `model.uploaded` with `model.admitted` or `model.refused`, reading each upload once."""

    def __init__(self) -> None:
        super().__init__("admit", warm, uploads=True)
        self._joined: SingleFlight[UploadRecord] = SingleFlight()

    async def respond(self, event: CloudEvent) -> CloudEvent:
        """Answer with what the current upload of the event's model came to."""
        data = read(event, ModelUploaded)
        if is_folder_marker(data.key, data.size):
            raise Ignored(f"{data.key!r} marks a folder, and is no upload")
        try:
            identity = identify(data.key).identity
        except KeyRefused as refused:
            refusal = await asyncio.to_thread(self._refuse_key, data.key, refused)
            return self._told(ModelRefused(key=data.key, refusal=refusal), event)
        upload = await asyncio.to_thread(uploads.current, self.services.store, identity)
        if upload is None:
            raise Ignored(f"{identity.subject} is gone")
        asked_for = data.origin == "missing"
        record = await self._joined.run(upload.record_key, lambda: self._record(upload, event, asked_for))
        if record.refusal is not None:
            return self._told(ModelRefused(key=upload.key, etag=upload.etag, refusal=record.refusal), event)
        return self._told(
            ModelAdmitted(
                dataset=identity.dataset,
                model=identity.model,
                version=identity.version,
                key=upload.key,
                etag=upload.etag,
                content=record.content or "",
            ),
            event,
        )

    async def _record(self, upload: Upload, event: CloudEvent, asked_for: bool) -> UploadRecord:
        """Return what the upload came to; where that is `asked_for`, what it says is there is looked at as well."""
        store = self.services.store
        found = await asyncio.to_thread(uploads.record, store, upload)
        again = found is not None and found.refusal is not None and await asyncio.to_thread(_put_again, store, upload)
        lost = asked_for and found is not None and not await asyncio.to_thread(uploads.is_whole, store, found)
        if found is not None and not again and not lost:
            return self._there(found)
        given = await asyncio.to_thread(_given, store, upload)
        earlier = await asyncio.to_thread(uploads.earlier_record, store, upload, given.architecture)
        if found is None and earlier is not None:
            return self._there(await asyncio.to_thread(_settle, store, upload, earlier))
        with self.circuit.trying(upload.identity.subject):
            record = await self._read(upload, given, event, again)
        count(self.name, "refused" if record.refusal else "computed")
        return record

    def _there(self, found: UploadRecord) -> UploadRecord:
        count(self.name, "already_there")
        return found

    async def _read(self, upload: Upload, given: Given, event: CloudEvent, again: bool) -> UploadRecord:
        store, start = self.services.store, time.perf_counter()
        described = await asyncio.to_thread(datasets.describe, store, upload.identity.dataset)
        shape, memory = described.shape if described else None, self.services.limits.memory_mb * 2**20
        self.services.uploads.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.services.uploads))
        try:
            path = folder / "upload"
            await asyncio.to_thread(_download, store, upload, path)
            given = await asyncio.to_thread(_with_lenders, store, upload, given, path)
            subject, work = upload.identity.subject, upload.record_key
            safe = await self.compute(subject, work, to_safe_form, path, given, shape, memory)
            await asyncio.to_thread(_check_written, safe, path)
            await asyncio.to_thread(blobs.put, store, safe.sha256, safe.path)
            outcome = await asyncio.to_thread(_admitted, store, safe)
        except Refused as refused:
            refusal = Refusal(code=refused.code, message=refused.message, hint=refused.hint)
            outcome = {"state": "refused", "refusal": refusal}
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        outcome |= {"architecture_given": given.architecture, "seconds": round(time.perf_counter() - start, 3)}
        return await asyncio.to_thread(_settle, store, upload, _record_of(upload, outcome, event), again)

    def _refuse_key(self, key: str, refused: KeyRefused) -> Refusal:
        refusal = Refusal(code=refused.code, message=str(refused), hint=refused.hint)
        made = RefusedKey(key=key, refusal=refusal)
        damage.settle(self.services.store, keys.refused_key(key), made, lambda found: found.key == key)
        return refusal

    def _told(self, data: ModelAdmitted | ModelRefused, event: CloudEvent) -> CloudEvent:
        return compose(data, source="/functions/admit", subject=event.subject, cause=event)


def _check_written(safe: SafeForm, upload: Path) -> None:
    """Check that a worker wrote what it says: having read an upload, it is not to choose what is stored, or by which name."""
    if not isinstance(safe, SafeForm) or safe.path != upload.with_suffix(".safe") or safe.path.is_symlink():
        raise WorkFailed("the computing process answered with what is no safe form of the upload")
    with safe.path.open("rb") as file:
        digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    if (digest, size) != (safe.sha256, safe.size):
        raise WorkFailed("the computing process wrote something else than it says")


def _download(store: ObjectStore, upload: Upload, path: Path) -> None:
    if upload.size > UPLOAD_LIMIT:
        raise Refused(
            "too-large",
            f"The upload has {upload.size:,} bytes; a model may have {UPLOAD_LIMIT:,}.",
            "store the weights as float32 without optimizer state, or ask the operator to run it elsewhere",
        )
    try:
        store.download(keys.MODELS, upload.key, path, etag=upload.etag, limit=UPLOAD_LIMIT)
    except (Changed, NotFound) as error:
        raise Ignored(f"{upload.key} was superseded while it was read") from error


def _given(store: ObjectStore, upload: Upload) -> Given:
    """Find out what the user says of an upload: in its metadata, or in sidecars, `VERSION.architecture.json`, `.input.json`."""
    named, images = upload.given.get("architecture"), _beside(store, upload, "input")
    content = _beside(store, upload, "architecture")
    said = None if images is None else _text(images)
    if content is None:
        return Given(named, images=said)
    if content.startswith((b"[", b"{")):  # blocks, or transformers' config.json
        return Given(named, content, images=said)
    return Given(_text(content), images=said)


def _beside(store: ObjectStore, upload: Upload, kind: str) -> bytes | None:
    sidecar = upload.sidecar_objects.get(kind)
    if sidecar is None or sidecar.size > BLOCKS_LIMIT:
        return None
    return store.get(keys.MODELS, sidecar.key).removeprefix(BOM_UTF8).strip()


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip('"')


def _with_lenders(store: ObjectStore, upload: Upload, given: Given, path: Path) -> Given:
    like = named(given.architecture)
    found = lenders(store, path, upload.identity, like, path.parent)
    lent = tuple((one.subject, one.file) for one in found)
    return replace(given, lenders=lent, like=like.subject if like else None)


def _admitted(store: ObjectStore, safe: SafeForm) -> dict[str, object]:
    outcome: dict[str, object] = {"state": "admitted", "content": safe.sha256, "content_size": safe.size}
    outcome |= {"architecture": safe.architecture, "notes": safe.notes}
    if safe.training:
        training = canonical_json(dict(safe.training))
        blobs.put(store, sha256(training), training, DATA_TYPE)
        outcome["training"] = sha256(training)
    return outcome


def _put_again(store: ObjectStore, upload: Upload) -> bool:
    """Tell whether an upload was put once more after what it came to was written: layers or a dataset may be there now."""
    # By a listing, as the upload's own time is: S3 tells it in whole seconds where one object is asked for.
    written = next(iter(store.list(keys.PRODUCTS, upload.record_key)), None)
    return written is not None and upload.modified > written.modified


def _settle(store: ObjectStore, upload: Upload, made: UploadRecord, again: bool = False) -> UploadRecord:
    """Store what the upload came to, unless somebody has, and return what is stored; `again`: a refusal gives way."""

    def stands(found: UploadRecord) -> bool:
        if again and found.refusal is not None:
            return False
        return uploads.is_of(found, upload) and (found.content == made.content or uploads.is_whole(store, found))

    return damage.settle(store, upload.record_key, made, stands)


def _record_of(upload: Upload, outcome: Mapping[str, object], event: CloudEvent) -> UploadRecord:
    identity = upload.identity
    return UploadRecord.model_validate(
        {
            "dataset": identity.dataset,
            "model": identity.model,
            "version": identity.version,
            "recipe": UploadRecord.RECIPE,
            "etag": upload.etag,
            "sidecars": upload.sidecars,
            "size": upload.size,
            "software": dict(software()),
            "event": event.id,
            "traceparent": event.extensions.get("traceparent"),
            **outcome,
        }
    )


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Admit()
