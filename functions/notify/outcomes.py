"""From an event to the outcome that it tells of, as the bucket has it now: what is out of date is told to nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from layerscope.events.cloudevent import CloudEvent, read
from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import ModelRefused, ProductFailed, ProductRefused, ProductWritten
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Headline, Refusal, UploadRecord
from layerscope.schemas.products import product_named
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.findings import Findings
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import blobs, product_store, uploads
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.outcomes.places import ADMIT
from layerscope.stores.uploads import Upload

TOLD_OF: Final = timedelta(days=7)
"""What was uploaded before is not told of: a new recipe has the products of every stored model made again."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """A model's findings are there; `evaluation`: how right it is."""

    evaluation: Headline
    findings: Findings


@dataclass(frozen=True, slots=True)
class NotAnalysed:
    """An upload was refused, or its predictions were; `key`: what was uploaded."""

    key: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Failed:
    """A function gave up."""

    function: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there is to tell, of whom (None: of an upload without a name), and what makes it another outcome."""

    identity: Identity | None
    said: Analysed | NotAnalysed | Failed
    marks: Mapping[str, str]


def outcome_of(store: ObjectStore, event: CloudEvent, now: datetime | None = None) -> Outcome:
    """Return the outcome that an event tells of.

    Raises:
        Ignored: it is none that is told, was superseded, or is of an old upload.
        InvalidEventData: the event's data is not what its type says.
        Unavailable: the object store does not answer.
    """
    reader = _READERS.get(event.type)
    if reader is None:
        raise Ignored(f"a {event.type} is no outcome that is told")
    return reader(store, event, now or datetime.now(UTC))


def _written(store: ObjectStore, event: CloudEvent, now: datetime) -> Outcome:
    said = read(event, ProductWritten)
    if said.product != Findings.declared.name:
        raise Ignored(f"that {said.product} was written is not told")
    facts = uploads.facts(store, _admitted(store, _upload(store, said.identity, now), said.content))
    stands = product_store.manifest(store, Findings, facts)
    evaluation = product_store.manifest(store, Evaluation, facts)
    if stands is None or stands.refusal is not None or evaluation is None:
        raise Ignored(f"the findings of {said.subject} are being made again")
    try:
        findings = product_store.load(store, Findings, stands)
    except blobs.Damaged as error:
        raise Ignored(f"the findings of {said.subject} are damaged; they are made again") from error
    assert isinstance(findings, Findings)
    return Outcome(said.identity, Analysed(evaluation.headline, findings), {"content": said.content})


def _refused_predictions(store: ObjectStore, event: CloudEvent, now: datetime) -> Outcome:
    said = read(event, ProductRefused)
    if said.product != Predictions.declared.name:
        raise Ignored(f"that {said.product} was refused is not told")
    upload = _upload(store, said.identity, now)
    facts = uploads.facts(store, _admitted(store, upload, said.content))
    if address_of(Predictions, facts) != said.address:
        raise Ignored(f"the predictions of {said.subject} have another address by now")
    marks = {"content": said.content, "refused": said.refusal.code}
    return Outcome(said.identity, NotAnalysed(upload.key, said.refusal), marks)


def _refused_upload(store: ObjectStore, event: CloudEvent, now: datetime) -> Outcome:
    said = read(event, ModelRefused)
    there = store.head(keys.MODELS, said.key)
    if there is None or (said.etag is not None and there.etag != said.etag):
        raise Ignored(f"{said.key[:100]!r} is no longer what was refused")
    _check_recent(there.modified, now)
    marks = {"key": said.key, "etag": there.etag, "refused": said.refusal.code}
    return Outcome(None, NotAnalysed(said.key, said.refusal), marks)


def _failed(store: ObjectStore, event: CloudEvent, now: datetime) -> Outcome:
    said = read(event, ProductFailed)
    upload = _upload(store, said.identity, now)
    record = uploads.record(store, upload)
    if said.function == ADMIT:
        if record is not None:
            raise Ignored(f"{said.subject} was read after all")
    elif record is None or record.content is None or _is_settled(store, said, uploads.facts(store, record)):
        raise Ignored(f"the {said.function} of {said.subject} is there, or is no longer what failed")
    marks = {"etag": upload.etag, "failed": said.function}
    return Outcome(said.identity, Failed(said.function, said.reason), marks)


_READERS: Final[Mapping[str, Callable[[ObjectStore, CloudEvent, datetime], Outcome]]] = {
    ProductWritten.type: _written,
    ProductRefused.type: _refused_predictions,
    ModelRefused.type: _refused_upload,
    ProductFailed.type: _failed,
}


def _is_settled(store: ObjectStore, said: ProductFailed, facts: Facts) -> bool:
    product = product_named(said.function)
    return address_of(product, facts) != said.address or product_store.manifest(store, product, facts) is not None


def _upload(store: ObjectStore, identity: Identity, now: datetime) -> Upload:
    upload = uploads.current(store, identity)
    if upload is None:
        raise Ignored(f"{identity.subject} is no longer there")
    _check_recent(upload.modified, now)
    return upload


def _check_recent(uploaded: datetime, now: datetime) -> None:
    if now - uploaded > TOLD_OF:
        raise Ignored(f"it was uploaded more than {TOLD_OF.days} days ago")


def _admitted(store: ObjectStore, upload: Upload, content: str) -> UploadRecord:
    record = uploads.record(store, upload)
    if record is None or record.content != content:
        raise Ignored(f"{upload.identity.subject} is another model by now")
    return record
