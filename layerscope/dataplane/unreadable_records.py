"""What becomes of a record that cannot be decoded: an entry among the dead letters, and then it is passed over.

Every group that reads a topic comes to the same record. The first one says so; the others go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from layerscope.dataplane.resources import Subscription
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.kafka import Record
from layerscope.events.unreadable import note
from layerscope.schemas.events import RecordUnreadable


def notice(record: Record, source: str) -> CloudEvent:
    """Return the event that says that a record cannot be read: of one record it is always the same."""
    assert record.fault is not None
    data = RecordUnreadable(
        topic=record.topic,
        partition=record.partition,
        first_offset=record.fault.first,
        last_offset=record.offset,
        reason=record.fault.reason,
    )
    return compose(data, source=source, subject=f"partition:{record.partition}#{record.offset}")


class UnreadableRecords:
    """Those that this process met; `publish` stores an event in a topic and returns only when it is there."""

    def __init__(self, publish: Callable[[str, CloudEvent], Awaitable[None]]) -> None:
        """Begin with none."""
        self._publish = publish
        self._met: set[tuple[str, int, int]] = set()

    async def pass_over(self, record: Record, subscription: Subscription) -> None:
        """Return when the record is logged, counted and among the dead letters, or another group has seen to that."""
        place = (record.topic, record.partition, record.offset)
        topic = subscription.delivery.dead_letter_topic
        if place in self._met or topic is None:
            note(record)
            return
        self._met.add(place)
        note(record)
        await self._publish(topic, notice(record, f"/topics/{record.topic}"))
