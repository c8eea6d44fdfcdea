"""Announce: the storage's notifications, as they come through `s3.raw`, become `model.uploaded` and `model.removed`.

A KafkaSource feeds this function and discards its answers, so it publishes what it has to say itself. A store without
Kafka posts the same notifications to it as a webhook does, bare: they are no CloudEvents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from layerscope.events import http
from layerscope.events.cloudevent import JSON, CloudEvent, compose
from layerscope.events.notification import read_notification
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.services import publish
from layerscope.schemas.events import ModelUploaded
from layerscope.schemas.identity import is_folder_marker, subject_of_key
from layerscope.schemas.keys import MODELS

WEBHOOK: Final = "io.layerscope.notification.v1"
"""The type of the event into which a bare notification is wrapped; it goes no further."""


class Announce(EventFunction):
    """Publishes one event for each record of a notification that concerns a model."""

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> CloudEvent:
        """Return the event of a request; a bare notification is wrapped in one."""
        if http.has_event(headers):
            return super().read(headers, body)
        digest = hashlib.sha256(body).hexdigest()
        return CloudEvent({"id": digest, "source": "/webhook", "type": WEBHOOK, "datacontenttype": JSON}, body)

    async def respond(self, event: CloudEvent) -> None:
        """Announce what the notification says, in its order.

        Raises:
            InvalidNotification: it is none.
        """
        for data in read_notification(event.data or b"", self.services.store.bucket_name(MODELS)):
            if isinstance(data, ModelUploaded) and is_folder_marker(data.key, data.size):
                continue
            news = compose(data, source="/functions/announce", subject=subject_of_key(data.key))
            await publish(self.services, news)


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Announce("announce")
