"""Announce: the storage's notifications, as they come through `s3.raw`, become `model.uploaded` and `model.removed`.

A KafkaSource feeds this function and discards its answers, so it publishes what it has to say itself.
"""

from __future__ import annotations

from events.cloudevent import CloudEvent, compose
from events.notification import InvalidNotification, read_notification
from functions.errors import InvalidEvent
from functions.handler import EventFunction
from functions.services import publish
from schemas.identity import subject_of_key


class Announce(EventFunction):
    """Publishes one event for each record of a notification that concerns a model."""

    async def respond(self, event: CloudEvent) -> None:
        """Announce what the notification tells, in its order."""
        try:
            told = read_notification(event.data or b"")
        except InvalidNotification as error:
            raise InvalidEvent(str(error)) from error
        for data in told:
            news = compose(data, source="/functions/announce", subject=subject_of_key(data.key))
            await publish(self.services, news)


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Announce("announce")
