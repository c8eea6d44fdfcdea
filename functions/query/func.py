"""Query: what people and programs ask. It reads the cache, the index and the bucket, and writes to the cache alone."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from functions.query.page_routes import wants_page
from functions.query.routes import Answers, application, secured
from functions.server import Receive, Scope, Send
from functions.services import Services, connect
from functions.settings import Settings


class QueryFunction:
    """The HTTP application, as a function that `func` can start and stop."""

    def __init__(self) -> None:
        self._answers: Answers
        self._app = application(lambda: self._answers)
        self._draining = False

    async def start(self, cfg: Mapping[str, str]) -> None:
        """Connect to the services that the environment names."""
        self.attach(connect(Settings.read(cfg)))

    def attach(self, services: Services) -> None:
        """Use these services."""
        self._answers = Answers(services)

    async def stop(self) -> None:
        """Let go of the cache; the server lets what is under way end first."""
        self._draining = True
        await self._answers.services.cache.close()

    def alive(self) -> tuple[bool, str]:
        """Tell that the event loop turns."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Tell whether requests may be sent."""
        return (False, "draining") if self._draining else (True, "ready")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; one that was answered before needs no parsing."""
        send = secured(send)
        answer = None if wants_page(scope) else await self._answers.answered.again(scope)
        if answer is None:
            await self._app(scope, receive, send)
        else:
            await Response(answer, media_type="application/json")(scope, receive, send)


def new() -> QueryFunction:
    """Return the function, as `func` expects it."""
    return QueryFunction()
