"""What `func` expects of a function that is asked over HTTP and takes no events: query, inference, stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from layerscope.functions.runtime import func_server
from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.functions.runtime.services import Services, connect
from layerscope.functions.runtime.settings import Settings


class AskedFunction(ABC):
    """Begins, and ends, with what the environment names; `under_way` is how many requests are being answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connect: Callable[[Settings], Services] = connect
        self.under_way = 0
        self.draining = False

    @abstractmethod
    def begin(self, settings: Settings) -> None:
        """Use the services of these settings; they connect when they are first used."""

    @abstractmethod
    def end(self) -> None:
        """Let go of what was used; the server has let what was in progress end."""

    @property
    @abstractmethod
    def attached(self) -> bool:
        """Tell whether there are services to answer with."""

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

    def start(self, cfg: Mapping[str, str]) -> None:
        """Use the services that the environment names.

        Raises:
            InvalidSettings: a variable is missing or cannot be used.
        """
        settings = Settings.read(cfg)
        func_server.configure(settings.drain_seconds)
        self.begin(settings)

    def stop(self) -> None:
        """Take nothing new, and let go of what was used."""
        self.draining = True
        self.end()

    def alive(self) -> tuple[bool, str]:
        """Say that the event loop turns."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Say whether requests may be sent."""
        if self.draining:
            return False, "draining"
        return (True, "ready") if self.attached else (False, "starting")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it meanwhile."""
        self.under_way += 1
        try:
            await self.answer(scope, receive, send)
        finally:
            self.under_way -= 1
