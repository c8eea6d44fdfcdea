"""PingSources: an event at once, and then one a period. While a ping is unanswered none is added to it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import UTC, datetime
from typing import Final

from layerscope.dataplane.delivery import USER_AGENT
from layerscope.dataplane.resources import Ping
from layerscope.dataplane.subscribers import Subscriber
from layerscope.events.cloudevent import CloudEvent
from layerscope.events.http import to_binary

logger = logging.getLogger(__name__)

TYPE: Final = "dev.knative.sources.ping"
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0


class Pinger:
    """Keeps one PingSource going; a ping that is not taken is repeated until the next one is due."""

    def __init__(self, ping: Ping, subscriber: Subscriber) -> None:
        """Prepare; nothing is sent before `run`."""
        self.ping = ping
        self.taken = 0
        self.in_flight = False
        self._subscriber = subscriber

    async def run(self) -> None:
        """Ping until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.ping.period_seconds
            pause = FIRST_PAUSE_SECONDS
            while not await self._offer() and loop.time() + pause < due:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _offer(self) -> bool:
        headers, body = to_binary(self._event())
        self.in_flight = True
        try:
            seconds = self._subscriber.service.timeout_seconds
            answer = await self._subscriber.call({**headers, "user-agent": USER_AGENT}, body, seconds)
        finally:
            self.in_flight = False
        if answer is None or not answer.accepted:
            logger.info("the ping %s was not taken: %s", self.ping.name, answer.status if answer else "no answer")
            return False
        self.taken += 1
        return True

    def _event(self) -> CloudEvent:
        attributes = {
            "id": str(uuid.uuid4()),
            "source": f"/apis/v1/namespaces/{self.ping.namespace}/pingsources/{self.ping.name}",
            "type": TYPE,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": self.ping.media_type,
        }
        return CloudEvent(attributes, self.ping.data)
