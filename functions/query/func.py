"""Query: what people and programs ask. It reads the cache, the index and the bucket; it writes to the cache, and to the
bucket only what operators decide: that a plan is to be run, that a dead letter is left be.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

import httpx
from starlette.responses import JSONResponse, Response

from layerscope.functions.query.asked_inference import client_of
from layerscope.functions.query.guard import ANYBODY, SECONDS, Guard, Rejection
from layerscope.functions.query.page_routes import error_page, wants_page
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.routes import application, secured
from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.functions.runtime.asked import AskedFunction
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.queries import ErrorAnswer


class QueryFunction(AskedFunction):
    """The HTTP application, as a function that `func` can start and stop."""

    def __init__(self) -> None:
        super().__init__("query")
        self._answers: Answers | None = None
        self._app = application(self._attached)
        self._guard = ANYBODY

    def begin(self, settings: Settings) -> None:
        """Use the services of these settings; they connect when they are first used.

        Raises:
            InvalidSettings: strangers could reach it, and no key is set.
        """
        self.attach(self.connect(settings), Guard.of(settings), client_of(settings.inference_url))

    def attach(self, services: Services, guard: Guard = ANYBODY, inference: httpx.AsyncClient | None = None) -> None:
        """Use these services, and `inference` for pictures; a guard is for those who come over a network."""
        self._answers, self._guard = Answers(services, inference), guard

    def end(self) -> None:
        """Let go of the cache and the language model; the server has let what was in progress end."""
        if self._answers is not None:
            self._closing = asyncio.get_running_loop().create_task(self._answers.stop())

    @property
    def attached(self) -> bool:
        """Tell whether there are services to answer from."""
        return self._answers is not None

    def _attached(self) -> Answers:
        if self._answers is None:
            raise LayerscopeError("query has no services yet: start it first")
        return self._answers

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, within a limit of time."""
        send, answering = secured(send), False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal answering
            answering = True
            await send(message)

        refusal = self._guard.refusal(scope, self.under_way - 1)
        if refusal is None and scope["path"].endswith(
            "\n"
        ):  # which a route's pattern, with $ at its end, would pass over
            refusal = NOWHERE
        if refusal is not None:
            await _answer(refusal, scope)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(SECONDS):
                await self._look(scope, receive, sending)
        except TimeoutError:
            if not answering:
                await _answer(LATE, scope)(scope, receive, send)

    async def _look(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may be asked; what was answered before needs no parsing."""
        answers = self._attached()
        response = await answers.kept.again(scope)
        if response is None and not wants_page(scope) and (answer := await answers.answered.again(scope)) is not None:
            response = Response(answer, media_type="application/json")
        await (response or self._app)(scope, receive, send)


NOWHERE: Final = Rejection(
    404, ErrorAnswer(code="no-such-path", message="Not Found.", hint="GET /openapi.json lists the paths"), {}
)
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
