"""What repair and replay ask for: an event each, which says whose outcome to look at, and a reason for people."""

from __future__ import annotations

from dataclasses import dataclass

from layerscope.schemas import keys
from layerscope.schemas.events import EventData, ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity, subject_of_key


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which function should look, at whom, the data that says so, and why it is asked."""

    function: str
    subject: str
    data: EventData
    reason: str = "never computed"


def upload_again(key: str, etag: str, size: int, reason: str) -> Ask:
    """Ask `admit` to look at an upload."""
    data = ModelUploaded(bucket=keys.MODELS, key=key, etag=etag, size=size, origin="missing")
    return Ask("admit", subject_of_key(key), data, reason)


def request(identity: Identity, function: str, reason: str) -> Ask:
    """Ask a function to look at a model version."""
    who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
    return Ask(function, identity.subject, ProductRequested(**who, product=function, reason="missing"), reason)
