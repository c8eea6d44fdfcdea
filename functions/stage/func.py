"""Stage: a part of a model that is split; it computes, asks the next stage, and answers with what that came to."""

from __future__ import annotations

import logging
import math
import time
from typing import Final

from prometheus_client import Counter

from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.functions.runtime.asked import AskedFunction
from layerscope.functions.runtime.circumstances import shortage
from layerscope.functions.runtime.request_body import drop_body, read_body
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import Settings
from layerscope.functions.stage.answers import Answered, Passed, failed, passed, refused
from layerscope.functions.stage.chain import Chain
from layerscope.functions.stage.hop import Late
from layerscope.functions.stage.messages import MOST_BYTES, SECONDS_LEFT, NotUnderstood, read_request
from layerscope.functions.stage.older import CONFIGURE, PREDICT, Older, encoded
from layerscope.schemas.errors import Busy, EventError, Refused
from layerscope.schemas.inference import PICTURE_BYTES

MOST_AT_ONCE: Final = 16
"""Requests in progress, of which those of earlier stages wait for the stages behind."""
JSON: Final = {"content-type": "application/json"}
SECONDS: Final = 30.0
"""How long a caller waits who does not say it."""

_log = logging.getLogger(__name__)
_answers = Counter("layerscope_stages", "Requests for a stage that were answered, by status", ["status"])


class StageFunction(AskedFunction):
    """Answers requests for stages, one at a time on its worker; while the next stage computes, it takes another."""

    def __init__(self) -> None:
        super().__init__("stage")
        self._chain: Chain | None = None
        self._older: Older | None = None

    def begin(self, settings: Settings) -> None:
        """Use the services of these settings; they connect when they are first used."""
        self.attach(
            self.connect(settings), settings.stage_urls, settings.layerscope_stage_model, settings.stage_allowed
        )

    def attach(
        self,
        services: Services,
        addresses: tuple[tuple[str, ...], ...] = (),
        model: str = "",
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        """Use these services, and these addresses of the stages: a group of replicas each; the rest is for `older`."""
        self._chain = Chain(services, addresses)
        self._older = Older(services, self._chain, model, allowed)

    def end(self) -> None:
        """End the worker."""
        if self._chain is not None and self._older is not None:
            self._chain.stop()
            self._older.stop()

    @property
    def attached(self) -> bool:
        """Tell whether there is a worker."""
        return self._chain is not None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        status, headers, body = await self._answer(scope, receive)
        _answers.labels(status).inc()
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        encoded.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answered:
        """Be the one error boundary: whatever happens below becomes exactly one status."""
        try:
            return await self._computed(scope, receive)
        except NotUnderstood as error:
            return failed(400, str(error))
        except Passed as error:
            return passed(error)
        except Refused as error:
            return refused(error)
        except Late as error:
            return failed(504, str(error))
        except EventError as error:
            return failed(error.status, str(error))
        except Exception as error:  # noqa: BLE001  the one error boundary
            if (short := shortage(error)) is not None:
                return failed(short.status, str(short))
            _log.error("a bug, while a stage was asked", exc_info=error)
            return failed(500, "internal error; see the function's log")

    async def _computed(self, scope: Scope, receive: Receive) -> Answered:
        arrived = time.monotonic()
        if self._chain is None or self._older is None or self.draining or self.under_way > MOST_AT_ONCE:
            await drop_body(receive, MOST_BYTES)
            raise Busy(f"this replica is {self.ready()[1]}, with {self.under_way} requests in progress")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"].removeprefix(f"/{self.name}"), scope["method"]
        if path == CONFIGURE:
            if method != "GET":
                raise NotUnderstood(f"{CONFIGURE} is asked by GET")
            return 200, JSON, encoded(await self._older.configure(scope["query_string"].decode("latin-1")))
        if method != "POST":
            raise NotUnderstood("a stage is asked by POST")
        until = arrived + _seconds(headers.get(SECONDS_LEFT))
        most = PICTURE_BYTES if path == PREDICT else MOST_BYTES
        body = await read_body(scope["headers"], receive, most, "a request")
        if path == PREDICT:
            return 200, JSON, encoded(await self._older.predict(body, headers.get("content-type", ""), until))
        request, behind = read_request(path, headers, memoryview(body)), None
        if self.under_way > room(request.number, len(request.cuts) + 1):
            raise Busy(f"this replica has {self.under_way} requests in progress, and keeps room for later stages")
        if request.configured:
            request, behind = self._older.continued(request)
        return 200, *await self._chain.answer(request, until, behind)


def room(number: int, stages: int) -> int:
    """Return how many requests may be in progress for one more of a stage to be taken.

    Later stages may use places that earlier ones may not: where one pool is all stages of a plan, those that wait for the
    next stage never keep it from being computed.
    """
    return -(-MOST_AT_ONCE * (number + 1) // stages)


def _seconds(said: str | None) -> float:
    try:
        found = SECONDS if said is None else float(said)
    except ValueError as error:
        raise NotUnderstood(f"{SECONDS_LEFT} is no number") from error
    if not math.isfinite(found):
        raise NotUnderstood(f"{SECONDS_LEFT} is no number of seconds")
    return min(max(found, 0.0), 3_600.0)


def new() -> StageFunction:
    """Return the function, as `func` expects it."""
    return StageFunction()
