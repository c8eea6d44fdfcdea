"""A dead letter as it is kept: the event, who did not take it, and what was answered last.

A record that could not be decoded is one too: the data plane says where it lies, and nobody ever sees what it was.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from layerscope.events.cloudevent import CloudEvent, read
from layerscope.functions.replay.failures import Wanted, wanted
from layerscope.functions.runtime.dead_letters import DeadLetter
from layerscope.schemas import keys
from layerscope.schemas.events import RecordUnreadable
from layerscope.schemas.replays import DeadLetterRecord
from layerscope.stores import dead_letters
from layerscope.stores.object_store import ObjectStore

DATA_CHARACTERS: Final = 16_384
VALUE_CHARACTERS: Final = 2_048
NOBODY: Final = "nobody"
"""Stands for the function in the dead letter of a record that was read by none."""


class Letters:
    """Keeps dead letters, one at a time: to count them is to read and to write."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def keep(self, store: ObjectStore, event: CloudEvent, letter: DeadLetter | None) -> bool:
        """Keep an event that is a dead letter, and return whether that is all that there is to do about it.

        Raises:
            Unavailable: the object store does not answer.
        """
        is_record = event.type == RecordUnreadable.type
        if is_record or letter is not None:
            async with self._turn:
                await asyncio.to_thread(_keep, store, event, None if is_record else letter)
        return is_record


def _keep(store: ObjectStore, event: CloudEvent, letter: DeadLetter | None) -> None:
    now = datetime.now(UTC)
    kept = unreadable(event, now) if letter is None else recorded(letter, wanted(store, letter), now)
    dead_letters.record(store, kept)


def recorded(letter: DeadLetter, asked: Wanted, now: datetime) -> DeadLetterRecord:
    """Return what is kept of a dead letter, with what it `asked` for; of long data, how it begins."""
    cause = dead_letters.of_cause(
        letter.function,
        letter.event.subject or letter.event.id,
        asked.upload,
        status=letter.status,
        error=letter.kind,
        reason=letter.reason,
        is_beside=asked.outcome.startswith(keys.BESIDE),
    )
    return DeadLetterRecord(
        **_event(letter.event, now),
        id=cause,
        function=letter.function,
        reason=letter.reason,
        error=letter.kind,
        status=letter.status,
        outcome=asked.outcome,
    )


def unreadable(event: CloudEvent, now: datetime) -> DeadLetterRecord:
    """Return what is kept of a record that could not be decoded."""
    said = read(event, RecordUnreadable)
    reason = f"{said.topic}, partition {said.partition}, offset {said.last_offset} cannot be read: {said.reason}"
    place = dead_letters.identifier(event.id, NOBODY)
    return DeadLetterRecord(**_event(event, now), id=place, function=NOBODY, reason=reason)


def _event(event: CloudEvent, now: datetime) -> dict[str, Any]:
    said = event.extensions
    place = [said.get("knativekafkapartition"), said.get("knativekafkaoffset")]
    attributes = {name: value[:VALUE_CHARACTERS] for name, value in sorted(event.attributes().items())}
    return {
        "subject": event.subject,
        "type": event.type,
        "first": now,
        "last": now,
        "places": (":".join(map(str, place)),) if all(place) else (),
        "attributes": {
            name: one for name, one in attributes.items() if name not in ("specversion", "knativeerrordata")
        },
        "data": (event.data or b"").decode("utf-8", "replace")[:DATA_CHARACTERS],
    }
