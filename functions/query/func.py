"""Query: what people and programs ask. It reads the cache, the index and the bucket; it writes to the cache, and to the
bucket only what operators decide: that a plan is to be run, that a dead letter is left be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from layerscope.functions.query.guard import ANYBODY, SECONDS, Guard, Rejection
from layerscope.functions.query.page_routes import error_page, wants_page
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.routes import application, secured
from layerscope.functions.runtime import func_server
from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.functions.runtime.services import Services, connect
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.queries import ErrorAnswer


class QueryFunction:
    """The HTTP application, as a function that `func` can start and stop."""

    name = "query"

    def __init__(self) -> None:
        self._answers: Answers | None = None
        self._app = application(self._attached)
        self._guard = ANYBODY
        self._under_way = 0
        self._draining = False

    def start(self, cfg: Mapping[str, str]) -> None:
        """Use the services that the environment names; they connect when they are first used.

        Raises:
            InvalidSettings: a variable is missing or cannot be used, or strangers could reach it and no key is set.
        """
        settings = Settings.read(cfg)
        func_server.configure(settings.drain_seconds)
        self.attach(connect(settings), Guard.of(settings))

    def attach(self, services: Services, guard: Guard = ANYBODY) -> None:
        """Use these services; a guard is for those who come over a network."""
        self._answers, self._guard = Answers(services), guard

    def stop(self) -> None:
        """Let go of the cache and the language model; the server has let what was in progress end."""
        self._draining = True
        if self._answers is not None:
            self._closing = asyncio.get_running_loop().create_task(self._answers.stop())

    def alive(self) -> tuple[bool, str]:
        """Say that the event loop turns."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Say whether requests may be sent."""
        if self._draining:
            return False, "draining"
        return (False, "starting") if self._answers is None else (True, "ready")

    def _attached(self) -> Answers:
        if self._answers is None:
            raise LayerscopeError("query has no services yet: start it first")
        return self._answers

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, within a limit of time."""
        send, answering = secured(send), False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal answering
            answering = True
            await send(message)

        if refusal := self._guard.refusal(scope, self._under_way):
            await _answer(refusal, scope)(scope, receive, send)
            return
        self._under_way += 1
        try:
            async with asyncio.timeout(SECONDS):
                await self._look(scope, receive, sending)
        except TimeoutError:
            if not answering:
                await _answer(LATE, scope)(scope, receive, send)
        finally:
            self._under_way -= 1

    async def _look(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may be asked; what was answered before needs no parsing."""
        answer = None if wants_page(scope) else await self._attached().answered.again(scope)
        if answer is None:
            await self._app(scope, receive, send)
        else:
            await Response(answer, media_type="application/json")(scope, receive, send)


LATE: Final = Rejection(
    504, ErrorAnswer(code="took-too-long", message=f"There was no answer in {SECONDS:g} s.", hint="try again later"), {}
)


def _answer(refusal: Rejection, scope: Scope) -> Response:
    if wants_page(scope):
        page = error_page(refusal.status, refusal.answer)
        page.headers.update(refusal.headers)
        return page
    return JSONResponse(refusal.answer.model_dump(), refusal.status, headers=refusal.headers)


def new() -> QueryFunction:
    """Return the function, as `func` expects it."""
    return QueryFunction()
