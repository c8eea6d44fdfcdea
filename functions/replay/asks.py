"""What repair and replay ask for: an event each, which says whose outcome to look at, and a reason for people."""

from __future__ import annotations

from dataclasses import dataclass

from layerscope.schemas import keys
from layerscope.schemas.events import EventData, ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity, subject_of_key
from layerscope.stores.outcomes.places import ADMIT, Seen


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which function should look, at whom, the data that says so, and why it is asked."""

    function: str
    subject: str
    data: EventData
    reason: str = "never computed"


def asks_of(seen: Seen, *, failed: bool = False) -> list[Ask]:
    """Ask for what a model version lacks and can have now; with what has `failed` and is not due again, or without."""
    upload = seen.upload
    return [
        upload_again(upload.key, upload.etag, upload.size, one.reason)
        if one.function == ADMIT
        else request(upload.identity, one.function, one.reason)
        for one in seen.lacks(failed=failed)
    ]


def upload_again(key: str, etag: str, size: int, reason: str) -> Ask:
    """Ask `admit` to look at an upload."""
    data = ModelUploaded(bucket=keys.MODELS, key=key, etag=etag, size=size, origin="missing")
    return Ask(ADMIT, subject_of_key(key), data, reason)


def request(identity: Identity, function: str, reason: str) -> Ask:
    """Ask a function to look at a model version."""
    who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
    return Ask(function, identity.subject, ProductRequested(**who, product=function, reason="missing"), reason)
