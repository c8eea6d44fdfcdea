"""A function as a process: health, metrics, start and stop around its `handle`, as `func` gives them on a cluster."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from layerscope.functions.runtime.request_head import BoundedHeads
from layerscope.schemas.errors import LayerscopeError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Function(Protocol):
    """What a function's `new()` returns: what `func` expects of it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

    async def start(self, cfg: Mapping[str, str]) -> None:
        """Make ready, given the environment."""

    async def stop(self) -> None:
        """Let what is under way end."""

    def alive(self) -> tuple[bool, str]:
        """Tell whether the process works."""

    def ready(self) -> tuple[bool, str]:
        """Tell whether requests may be sent."""


def application(function: Function) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application of a function."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(function, receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        elif scope["path"] == "/health/liveness":
            await _tell(send, *function.alive())
        elif scope["path"] == "/health/readiness":
            await _tell(send, *function.ready())
        elif scope["path"] == "/metrics":
            await _send(send, 200, CONTENT_TYPE_LATEST, generate_latest())
        else:
            await function.handle(scope, receive, send)

    return app


async def _lifespan(function: Function, receive: Receive, send: Send) -> None:
    await receive()
    try:
        await function.start(os.environ)
    except LayerscopeError as error:  # uvicorn logs the sentence, and ends
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await function.stop()
    await send({"type": "lifespan.shutdown.complete"})


async def _tell(send: Send, well: bool, message: str) -> None:
    await _send(send, 200 if well else 503, "text/plain; charset=utf-8", message.encode())


async def _send(send: Send, status: int, media_type: str, body: bytes) -> None:
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(function: Function, address: str, drain_seconds: float) -> None:
    """Serve a function at `host:port` until SIGTERM, then let what is under way end."""
    host, _, port = address.rpartition(":")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True, format="%(message)s")
    logging.getLogger().handlers[0].setFormatter(JsonLines())
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it has several lines for every connection that fails
    uvicorn.run(
        application(function),
        host=host or "127.0.0.1",
        port=int(port),
        http=BoundedHeads,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(drain_seconds),
    )


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
