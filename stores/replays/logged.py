"""Whose events were written to the log in a span of time: of an outage, of a deployment that went wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from layerscope.events.cloudevent import InvalidCloudEvent
from layerscope.events.kafka import from_record
from layerscope.events.log import EventLog, LogUnavailable
from layerscope.events.memory import MemoryLog
from layerscope.schemas.errors import Refused, Unavailable
from layerscope.schemas.replays import Selection

MOST: Final = 100_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def logged(log: EventLog, topic: str, selection: Selection) -> frozenset[str] | None:
    """Return the subjects of the events in the selection's span of the log; None where it has none.

    Raises:
        Refused: there are more than 100,000 events in it, or the log is in memory, and began with its process.
        Unavailable: the log does not answer.
    """
    if selection.logged_since is None and selection.logged_until is None:
        return None
    if isinstance(log, MemoryLog):
        message = "The log of a directory lasts as long as its command: nothing in it tells of an earlier time."
        raise Refused("no-log", message, "select by the time of the upload, or of what was computed")
    since, until = selection.logged_since or EPOCH, selection.logged_until or datetime.now(UTC)
    try:
        records = log.between(topic, _milliseconds(since), _milliseconds(until), limit=MOST + 1)
    except LogUnavailable as error:
        raise Unavailable(str(error)) from error
    if len(records) > MOST:
        raise Refused("too-many-events", f"The log has more than {MOST:,} events in this time.", "give a shorter time")
    subjects = set()
    for one in records:
        try:
            event = from_record(one)
        except InvalidCloudEvent:
            continue
        if event is not None:
            subjects.add(event.subject)
    return frozenset(subjects)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
