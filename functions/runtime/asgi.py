"""What `func` expects of a function (start, stop, alive, ready, handle), around the one event that a request brings.

It covers what a bare server leaves open: a cap on the body, one answer for every request, an error for every status,
health that answers while work is in progress. It is plain ASGI, so that one object runs under func-python's server,
under ours, and in one process with the others.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from prometheus_client import Counter

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.runtime import func_server
from layerscope.functions.runtime.circuit import Circuit
from layerscope.functions.runtime.circumstances import shortage
from layerscope.functions.runtime.outcomes import count_error
from layerscope.functions.runtime.request_body import read_body
from layerscope.functions.runtime.services import Services, connect
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.errors import (
    BodyLate,
    BodyTooLarge,
    Busy,
    EventError,
    Ignored,
    LayerscopeError,
    MethodNotAllowed,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_LIMIT: Final = 1024 * 1024
QUEUE_LIMIT: Final = 256

_log = logging.getLogger(__name__)
_answers = Counter("layerscope_answers", "Events answered, by status", ["function", "status"])


class EventFunction(ABC):
    """A function that is given events over HTTP and may answer each with one; `respond` is what it does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connect: Callable[[Settings], Services] = connect
        self.circuit: Circuit | None = None
        self._services: Services | None = None
        self._in_progress = 0
        self._draining = False

    @abstractmethod
    async def respond(self, event: CloudEvent) -> CloudEvent | None:
        """Do what the event asks for; None: done, and there is no event to answer with.

        Raises:
            EventError: the event cannot be taken; its status is the answer.
        """

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> CloudEvent:
        """Return the event of a request.

        Raises:
            InvalidCloudEvent: there is none.
        """
        return http.from_request(headers, body)

    @property
    def services(self) -> Services:
        """Return the services that were attached."""
        if self._services is None:
            raise LayerscopeError(f"{self.name} has no services yet: start it first")
        return self._services

    # `func` calls start and stop, and awaits neither.

    def start(self, cfg: Mapping[str, str]) -> None:
        """Use the services that the environment names; they connect when they are first used.

        Raises:
            InvalidSettings: a variable is missing or cannot be used.
        """
        settings = Settings.read(cfg)
        func_server.configure(settings.drain_seconds)
        self.attach(self.connect(settings))

    def attach(self, services: Services) -> None:
        """Use these services."""
        self._services = services

    def stop(self) -> None:
        """Take nothing new; the server has let what was in progress end, as long as it was set to wait."""
        self._draining = True

    def alive(self) -> tuple[bool, str]:
        """Say that the event loop turns; a dependency that is down is no reason for a restart."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Say whether events may be sent: not while the function fails for everyone. What it is sent all the same, it takes."""
        accepting, state = self.accepts()
        reason = self.circuit.reason if self.circuit and accepting else None
        return (accepting, state) if reason is None else (False, reason)

    def accepts(self) -> tuple[bool, str]:
        """Say whether an event that comes is taken."""
        if self._draining:
            return False, "draining"
        return (False, "starting") if self._services is None else (True, "ready")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request: 200 with an event, 204, or an error whose body gives the reason."""
        self._in_progress += 1
        try:
            status, headers, body = await self._answer(scope, receive)
        finally:
            self._in_progress -= 1
        _answers.labels(self.name, status).inc()
        length = (b"content-length", str(len(body)).encode())
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": [*encoded, length]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, str], bytes]:
        """Be the one error boundary: whatever happens below becomes exactly one status."""
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("events are sent by POST")
            accepting, state = self.accepts()
            if not accepting or self._in_progress > QUEUE_LIMIT:
                raise Busy(f"this replica is {state}, with {self._in_progress} events in progress")
            event = self.read(scope["headers"], await read_body(scope["headers"], receive, BODY_LIMIT, "an event"))
            _log.info("%s received %s of %s, id %s", self.name, event.type, event.subject, event.id)
            with self.services.tracing.handling(self.name, event) as traced:
                answer = await self.respond(traced)
        except Ignored as reason:
            _log.info("%s ignored it: %s", self.name, reason)
            return reason.status, {}, b""
        except EventError as error:
            count_error(self.name, error.status)
            _log.warning("%s answered %d: %s", self.name, error.status, error)
            return _problem(error.status, type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001  the one error boundary
            if (short := shortage(error)) is not None:
                count_error(self.name, short.status)
                _log.warning("%s answered %d: %s", self.name, short.status, short)
                return _problem(short.status, type(short).__name__, str(short))
            count_error(self.name, 500)
            _log.error("a bug in %s, while an event was answered", self.name, exc_info=error)
            kind = type(error).__name__.lstrip(
                "_"
            )  # of an error that nobody foresaw, only the kind leaves the function
            return _problem(500, kind, f"internal error: {kind}; see the function's log")
        if answer is None:
            return 204, {}, b""
        return 200, *http.to_binary(answer)


def _problem(status: int, kind: str, message: str) -> tuple[int, dict[str, str], bytes]:
    # The genuine dispatcher never commits past an answer with a second hyphen after `kne-`; it keeps 1,024 bytes of body.
    headers = {"content-type": "text/plain; charset=utf-8", "kne-errorclass": kind}
    if status in (BodyLate.status, BodyTooLarge.status):
        headers["connection"] = "close"  # the rest of the body is not read, so nothing else can come here
    return status, headers, message.encode()[:1024]
