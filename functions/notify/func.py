"""Notify: what came of an upload is posted to a webhook, with the findings in the text.

Its Trigger lets through the events that say so: findings were written, predictions or the upload were refused, a
function gave up. Where the environment names no webhook it does nothing.
"""

from __future__ import annotations

import asyncio

from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.notify.once import once
from layerscope.functions.notify.outcomes import outcome_of
from layerscope.functions.notify.webhook import Webhook, from_environment
from layerscope.functions.notify.wording import text_of
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.digests import digest
from layerscope.schemas.errors import Ignored


class Notify(EventFunction):
    """Tells each outcome once."""

    def __init__(self) -> None:
        super().__init__("notify")
        self._webhook: Webhook | None = None

    def attach(self, services: Services) -> None:
        """Use these services, and the webhook that the environment names."""
        super().attach(services)
        self._webhook = from_environment()

    async def respond(self, event: CloudEvent) -> None:
        """Tell of the outcome.

        Raises:
            Ignored: there is nothing to tell, or it was told.
            Unavailable: the webhook does not answer, or cannot take it now; its event is sent again.
            NotTaken: the webhook refuses it.
        """
        webhook, store = self._webhook, self.services.store
        if webhook is None:
            raise Ignored("LAYERSCOPE_WEBHOOK_URL is not set: nobody is told")
        outcome = await asyncio.to_thread(outcome_of, store, event)
        subject = outcome.identity.subject if outcome.identity else event.subject
        place = keys.notification(digest({"subject": subject, **outcome.marks}))
        text = text_of(outcome, webhook.pages)
        await once(store, place, subject, event.id, lambda: webhook.post(text, event))


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Notify()
