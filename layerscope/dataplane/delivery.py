"""One event's way through a subscription: offered, offered again, and in the end taken, or stored as a dead letter.

    answer                           what becomes of the event
    2xx, no body, no ce- headers     done
    2xx with an event                done, and a Trigger's Broker gets that event; a KafkaSource discards it
    2xx with another body            a Trigger's dead letter at once, which says only where; fine for a KafkaSource
    404 408 409 429 5xx, none        offered again, `retry` times, and then a dead letter
    anything else                    a dead letter at once

This is what Knative's Kafka data plane does. Two things are better here: an event is not given up while its dead
letter cannot be stored, only where the log will never take one, even without the data; and a `kne-` header that cannot
become an extension's name does not wedge the partition.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from layerscope.dataplane.offered_events import clean
from layerscope.dataplane.resources import Subscription
from layerscope.dataplane.subscribers import Subscriber, SubscriberAnswer
from layerscope.events.attributes import CORE
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.http import from_request, to_binary
from layerscope.events.log import MessageRefused

logger = logging.getLogger(__name__)

USER_AGENT: Final = "layerscope-dataplane"
ERROR_DATA_BYTES: Final = 1024
# Names that an answer's kne- header must not take.
_TAKEN: Final = CORE | {"data", "knativeerrordest", "knativeerrorcode", "knativeerrordata"}

Publish = Callable[[str, CloudEvent], Awaitable[None]]
Pause = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """What a subscription has done since it began; counts only ever rise."""

    attempts: int = 0
    delivered: int = 0
    replies: int = 0
    dead_letters: int = 0
    lost: int = 0
    discarded: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class OfferedAgain:
    """An event that was not taken and waits for its next attempt: whose it is, and what the last attempt came to."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """Why an event was not taken; without an `answer` the dead letter says only where it was to go."""

    reason: str
    answer: SubscriberAnswer | None = None


class Delivery:
    """Brings the events of one subscription to their end.

    `publish` stores an event in a topic and returns only when it is there, however long the log is away; `pause` waits
    for so many seconds before a retry.
    """

    def __init__(
        self, subscription: Subscription, subscriber: Subscriber, publish: Publish, pause: Pause, tally: Tally
    ) -> None:
        """Count in `tally`; everything else is said above."""
        self._subscription = subscription
        self._subscriber = subscriber
        self._publish = publish
        self._pause = pause
        self._tally = tally
        self.offered_again: dict[str, OfferedAgain] = {}
        """What waits for its next attempt, by the event's id."""

    async def deliver(self, event: CloudEvent, traceparent: str | None = None) -> None:
        """Return when the event was taken, or its dead letter is stored, or there is nowhere to store one."""
        try:
            failure = await self._offer(event, traceparent)
        finally:
            self.offered_again.pop(event.id, None)
        if failure is None:
            self._tally.delivered += 1
            return
        topic = self._subscription.delivery.dead_letter_topic
        logger.warning(
            "%s: event %s (%s, %s) was not taken: %s%s",
            self._subscription.name,
            event.id,
            event.type,
            event.subject,
            failure.reason,
            "" if topic else "; there is no dead letter sink",
        )
        letter = dead_letter(event, self._subscriber.destination, failure.answer)
        if topic is not None and await self._bury(topic, letter):
            self._tally.dead_letters += 1
        else:
            self._tally.lost += 1

    async def _bury(self, topic: str, letter: CloudEvent) -> bool:
        # Where the event just fitted, its reason may not fit with it, but does without its data; and a record that
        # has neither key nor value, which other producers may write, is given a key.
        without = letter.with_data(None).with_attributes(**{"partitionkey": letter.id, **letter.extensions})
        for candidate in (letter, without):
            try:
                await self._publish(topic, candidate)
                return True
            except MessageRefused as error:
                logger.error("%s: the dead letter of %s: %s", self._subscription.name, letter.id, error)
        return False

    def _headers(self, traceparent: str | None) -> dict[str, str]:
        headers = {"prefer": "reply", "kn-namespace": self._subscription.namespace, "user-agent": USER_AGENT}
        return headers if traceparent is None else {**headers, "traceparent": traceparent}

    async def _offer(self, event: CloudEvent, traceparent: str | None) -> DeliveryFailure | None:
        headers, body = to_binary(event)
        headers = {**headers, **self._headers(traceparent)}
        policy = self._subscription.delivery
        answer: SubscriberAnswer | None = None
        for retry in range(policy.retry + 1):
            if retry:
                await self._pause(policy.delay(retry))
            self._tally.attempts += 1
            answer = await self._subscriber.call(headers, body, policy.timeout_seconds)
            if answer is not None and answer.accepted:
                return await self._take_reply(answer)
            if answer is not None and not answer.retryable:
                break
            self.offered_again[event.id] = OfferedAgain(event.subject or "", _said(answer))
        return DeliveryFailure("no answer" if answer is None else f"status {answer.status}", answer)

    async def _take_reply(self, answer: SubscriberAnswer) -> DeliveryFailure | None:
        topic = self._subscription.reply_topic
        if topic is None:
            return None
        try:
            reply = reply_in(answer)
        except InvalidCloudEvent as error:
            return DeliveryFailure(f"status {answer.status} with a body that is {error}")
        if reply is None:
            return None
        if reply.data is None and "partitionkey" not in reply.extensions:
            reply = reply.with_data(b"")  # a record without a key needs a value
        try:
            await self._publish(topic, reply)
        except MessageRefused as error:
            return DeliveryFailure(f"status {answer.status} with an event that cannot be published: {error}")
        self._tally.replies += 1
        return None


def reply_in(answer: SubscriberAnswer) -> CloudEvent | None:
    """Return the event that an answer holds, if it holds anything; its status says nothing about that, only headers do.

    Raises:
        InvalidCloudEvent: it holds something else.
    """
    headers = {name.lower(): value for name, value in answer.headers}
    structured = headers.get(b"content-type", b"").lower().startswith(b"application/cloudevents")
    if not structured and b"ce-specversion" not in headers and not answer.body:
        return None
    return from_request(answer.headers, answer.body)


def dead_letter(event: CloudEvent, destination: str, answer: SubscriberAnswer | None) -> CloudEvent:
    """Return the event with where it was to go, and the last answer: its status, `kne-` headers and first bytes."""
    if answer is None:
        return event.with_attributes(knativeerrordest=destination)
    extensions = _error_extensions(answer)
    extensions |= {"knativeerrordest": destination, "knativeerrorcode": str(answer.status)}
    if answer.body:
        extensions["knativeerrordata"] = base64.b64encode(answer.body[:ERROR_DATA_BYTES]).decode("ascii")
    return event.with_attributes(**extensions)


def _said(answer: SubscriberAnswer | None) -> str:
    """Return what an attempt came to; the body of an error is its reason."""
    if answer is None:
        return "gave no answer"
    reason = clean(answer.body[:ERROR_DATA_BYTES].decode("utf-8", "replace")).strip()
    return f"answered {answer.status}: {reason}" if reason else f"answered {answer.status}"


def _error_extensions(answer: SubscriberAnswer) -> dict[str, str]:
    extensions: dict[str, str] = {}
    for raw_name, value in answer.headers:
        header = raw_name.decode("latin-1").lower()
        if not header.startswith("kne-"):
            continue
        name = re.sub("[^a-z0-9]", "", header.removeprefix("kne-"))
        if header != f"kne-{name}":
            logger.error("the header %r would wedge Knative's data plane: letters and digits only after kne-", header)
        if name and name not in _TAKEN:
            extensions[name] = clean(value.decode("utf-8", "replace"))
    return extensions
