"""What still waits for a function, or is under way in it: the events that its consumer groups have not committed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.kafka import Record, from_record, type_of
from layerscope.events.log import BACKLOG_RECORDS as LIMIT
from layerscope.events.log import EventLog
from layerscope.events.notification import InvalidNotification, read_notification
from layerscope.events.topics import Tenant
from layerscope.schemas.events import (
    REPLAY_LANE,
    ModelAdmitted,
    ModelUploaded,
    ProductRefused,
    ProductRequested,
    ProductWritten,
)
from layerscope.schemas.identity import subject_of_key
from layerscope.schemas.keys import MODELS
from layerscope.schemas.products import product_named
from layerscope.schemas.products.product import Product

_WAKING: Final = frozenset(
    one.type for one in (ModelAdmitted, ModelUploaded, ProductRefused, ProductRequested, ProductWritten)
)
_log = logging.getLogger(__name__)
LATEST_MS: Final = 253_402_300_799_000  # the end of the calendar: a producer may write any time


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that a consumer group has not finished: whose it is, where it lies, and since when (UTC)."""

    subject: str
    group: str
    partition: int
    offset: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    """Whose events wait for a function; `is_whole`: nobody else's, as there are no more than could be looked at."""

    subjects: frozenset[str]
    is_whole: bool

    def may_hold(self, subject: str) -> bool:
        """Tell whether an event about a model may wait: to ask for it once more would only make the queue longer."""
        return not self.is_whole or subject in self.subjects


def queued(log: EventLog, function: str, tenant: Tenant, uploads: str = MODELS) -> Queued:
    """Return whose events wait for `function`; arguments and errors as for `waiting`."""
    topics = _topics(function, tenant)
    if (group := _longest(log, topics)) is not None:
        _log.warning("%s has more than %d records before it in %s: nothing more is asked of it", function, LIMIT, group)
        return Queued(frozenset(), is_whole=False)
    found = {group: log.backlog(topic, group) for group, topic in topics.items()}
    # The log goes on meanwhile, and of a group that has read nothing yet no length is known.
    whole = all(len(records) < LIMIT for records in found.values())
    subjects = (one.subject for one in _waiting(function, found, tenant, uploads))
    return Queued(frozenset(subjects), is_whole=whole)


def _topics(function: str, tenant: Tenant) -> dict[str, str]:
    """Return the groups in which events wait for a function, and the topic that each reads."""
    announced = {tenant.announce_group: tenant.s3_raw} if function == "admit" else {}
    return {group: tenant.events for group, _ in groups(function, tenant)} | announced


def _longest(log: EventLog, topics: Mapping[str, str]) -> str | None:
    """Return a group with more before it than is looked at; one that nobody reads for counts where nobody reads at all.

    A lane whose Trigger was removed stays behind for ever; a data plane that is down comes back.
    """
    states = {group: one for group, one in log.groups(topics).items() if one is not None}
    read = {group: one for group, one in states.items() if one.has_members} or states
    return next((group for group, one in read.items() if one.lag is not None and one.lag > LIMIT), None)


def waiting(log: EventLog, function: str, tenant: Tenant, uploads: str = MODELS) -> Iterator[Waiting]:
    """Yield the events that wait for `function`, in the order of each group's partitions.

    Args:
        log: where they wait.
        function: its name; notifications that `announce` has yet to read wait for `admit` too.
        tenant: whose topics and groups they are.
        uploads: what the store calls the bucket of uploads.

    Raises:
        LogUnavailable: the log does not answer.
    """
    found = {group: log.backlog(topic, group) for group, topic in _topics(function, tenant).items()}
    yield from _waiting(function, found, tenant, uploads)


def _waiting(function: str, records: Mapping[str, Sequence[Record]], tenant: Tenant, uploads: str) -> Iterator[Waiting]:
    for group, replayed in groups(function, tenant):
        for one in records[group]:
            kind = type_of(one)
            event = event_of(one) if kind is None or kind in _WAKING else None
            lane_fits = event is not None and (
                replayed is None or replayed == (event.extensions.get("lane") == REPLAY_LANE)
            )
            if event is not None and lane_fits and wakes(function, event):
                yield _place(one, event.subject, group)
    if function == "admit":
        yield from _unannounced(records[tenant.announce_group], tenant, uploads)


def groups(function: str, tenant: Tenant) -> tuple[tuple[str, bool | None], ...]:
    """Return the consumer groups of a function, and whether each is of the replay lane; None: of all lanes."""
    name = function.replace("_", "-")
    if function == "index":
        return ((tenant.trigger_group(name), None),)
    return (tenant.trigger_group(name), False), (tenant.trigger_group(f"{name}-replay"), True)


def _unannounced(records: Sequence[Record], tenant: Tenant, uploads: str) -> Iterator[Waiting]:
    """Yield what the store has notified of and `announce` has yet to read."""
    for one in records:
        try:
            read = read_notification(one.value or b"", uploads)
        except InvalidNotification:
            continue
        for data in read:
            yield _place(one, subject_of_key(data.key), tenant.announce_group)


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
    declared, told = product.declared, event.extensions.get("product")
    if not declared.stands_on:
        return event.type == ModelAdmitted.type
    if event.type == ProductRefused.type:
        return told in {one.declared.name for one in declared.optional}
    return event.type == ProductWritten.type and told in {one.declared.name for one in declared.stands_on}


def event_of(record: Record) -> CloudEvent | None:
    """Return the event of a record; None where it is none, and the Broker passes over it as well."""
    try:
        return from_record(record)
    except InvalidCloudEvent:
        return None


def time_of(record: Record) -> datetime:
    """Return when a record was written, in UTC, as its producer says."""
    return datetime.fromtimestamp(min(max(record.timestamp_ms, 0), LATEST_MS) / 1000, UTC)


def _place(record: Record, subject: str, group: str) -> Waiting:
    return Waiting(subject, group, record.partition, record.offset, time_of(record))
