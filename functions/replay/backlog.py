"""What still waits for a function, or is under way in it: the events that its consumer groups have not committed."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.kafka import from_record
from layerscope.events.log import EventLog
from layerscope.events.notification import InvalidNotification, read_notification
from layerscope.events.topics import Tenant
from layerscope.schemas.events import REPLAY_LANE, ModelAdmitted, ModelUploaded, ProductRequested, ProductWritten
from layerscope.schemas.identity import subject_of_key
from layerscope.schemas.keys import MODELS
from layerscope.schemas.products import product_named
from layerscope.schemas.products.product import Product


def queued(log: EventLog, function: str, tenant: Tenant, uploads: str = MODELS) -> set[str]:
    """Return the subjects of the events that wait for `function`.

    Args:
        log: where they wait.
        function: its name.
        tenant: whose topics and groups they are.
        uploads: what the store calls the bucket of uploads.

    Raises:
        LogUnavailable: the log does not answer.
    """
    subjects = {event.subject for event in _waiting(log, function, tenant) if wakes(function, event)}
    if function == "admit":
        subjects |= set(_unannounced(log, tenant, uploads))
    return subjects


def wakes(function: str, event: CloudEvent) -> bool:
    """Tell whether an event makes `function` look; the Triggers in knative/ say the same, and a test compares them."""
    if event.type == ProductRequested.type:
        return event.extensions.get("product") == function
    if function == "admit":
        return event.type == ModelUploaded.type
    if function == "index":
        return False  # woken by nearly everything; only an explicit request says that its rows are looked at
    return _wakes_product(product_named(function), event)


def _wakes_product(product: type[Product], event: CloudEvent) -> bool:
    if not product.declared.inputs:
        return event.type == ModelAdmitted.type
    if event.type != ProductWritten.type:
        return False
    return event.extensions.get("product") in {one.declared.name for one in product.declared.inputs}


def _waiting(log: EventLog, function: str, tenant: Tenant) -> Iterator[CloudEvent]:
    lanes = ("",) if function == "index" else ("", "-replay")
    for lane in lanes:
        group = tenant.trigger_group(function.replace("_", "-") + lane)
        for one in log.backlog(tenant.events, group):
            try:
                event = from_record(one)
            except InvalidCloudEvent:
                continue  # the Broker passes over it as well
            replayed = event is not None and event.extensions.get("lane") == REPLAY_LANE
            if event is not None and (function == "index" or replayed == bool(lane)):
                yield event


def _unannounced(log: EventLog, tenant: Tenant, uploads: str) -> Iterator[str]:
    for one in log.backlog(tenant.s3_raw, tenant.announce_group):
        try:
            read = read_notification(one.value or b"", uploads)
        except InvalidNotification:
            continue
        yield from (subject_of_key(data.key) for data in read)
