"""Functions as a process: func-python's host around each, one path for each, health and metrics for all, on uvicorn.

`func` serves the same objects with a server of its own; uvicorn is the faster one, and bounds what a request may be.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest, start_http_server

from layerscope.functions.runtime import logs
from layerscope.functions.runtime.asgi import EventFunction, Receive, Scope, Send
from layerscope.functions.runtime.func_server import IDLE_SECONDS
from layerscope.functions.runtime.request_head import BoundedHeads
from layerscope.schemas.errors import LayerscopeError


class Function(Protocol):
    """What a function's `new()` returns: what `func` expects of it. `start` and `stop` are called, and not awaited."""

    name: str

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

    def start(self, cfg: Mapping[str, str]) -> None:
        """Use what the environment names."""

    def stop(self) -> None:
        """Take nothing new, and let go of what was used."""

    def alive(self) -> tuple[bool, str]:
        """Say whether the process works."""

    def ready(self) -> tuple[bool, str]:
        """Say whether requests may be sent."""


def application(*functions: Function, metrics: bool = True) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application of a host: each function at `/<name>` and below, and one that is alone at every path.

    `metrics`: whether `/metrics` is there as well.
    """
    host_of = _func_python()
    hosts: dict[str, Any] = {one.name: host_of(one) for one in functions}
    (alone,) = hosts.values() if len(hosts) == 1 else (None,)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(hosts.values(), receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        elif scope["path"] == "/health/liveness":
            await _report(send, {one.name: one.alive() for one in functions})
        elif scope["path"] == "/health/readiness":
            await _report(send, {one.name: one.ready() for one in functions}, _failing(functions))
        elif scope["path"] == "/metrics" and metrics:
            await _send(send, 200, CONTENT_TYPE_LATEST, generate_latest())
        elif (host := alone or hosts.get(scope["path"].strip("/").partition("/")[0])) is not None:
            await host(scope, receive, send)
        else:
            names = ", ".join(f"/{name}" for name in hosts)
            # 404 would be retried: to the event's sender this is an address that no retry mends
            await _send(send, 400, "text/plain; charset=utf-8", f"events are sent to one of {names}".encode())

    return app


def _func_python() -> Callable[[Function], Any]:
    """Return func-python's host; as it is imported it sets up logging for the whole process, which may be a user's own."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    from func_python.http import ASGIApplication  # and hypercorn with it, a quarter of a second

    root.setLevel(level)
    root.handlers[:] = handlers
    host: Callable[[Function], Any] = ASGIApplication
    return host


async def _lifespan(hosts: Iterable[Any], receive: Receive, send: Send) -> None:
    await receive()
    try:
        for host in hosts:
            await host.on_start()
    except LayerscopeError as error:  # uvicorn logs the sentence, and ends
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for host in hosts:
        await host.on_stop()
    await send({"type": "lifespan.shutdown.complete"})


def _failing(functions: Sequence[Function]) -> frozenset[str]:
    """Return which functions fail for everyone, unless all of them do: the others of their host go on."""
    names = {one.name for one in functions if isinstance(one, EventFunction) and one.circuit and one.circuit.reason}
    return frozenset(names) if len(names) < len(functions) else frozenset()


async def _report(send: Send, found: Mapping[str, tuple[bool, str]], passed_over: frozenset[str] = frozenset()) -> None:
    well = all(one or name in passed_over for name, (one, _) in found.items())
    lines = [message if len(found) == 1 else f"{name}: {message}" for name, (_, message) in found.items()]
    await _send(send, 200 if well else 503, "text/plain; charset=utf-8", "\n".join(lines).encode())


async def _send(send: Send, status: int, media_type: str, body: bytes) -> None:
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(
    *functions: Function,
    address: tuple[str, int],
    metrics_address: tuple[str, int] | None = None,
    drain_seconds: float,
) -> None:
    """Serve functions until SIGTERM, then let what is in progress end.

    Args:
        functions: what `new()` returned.
        address: host and port; an empty host: all interfaces.
        metrics_address: where `/metrics` is served instead of there.
        drain_seconds: how long calls may still take after SIGTERM.
    """
    app = application(*functions, metrics=metrics_address is None)
    if metrics_address is not None:
        host = metrics_address[0] or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
        start_http_server(metrics_address[1], host)
    logs.configure()
    uvicorn.run(
        app,
        host=address[0],
        port=address[1],
        http=BoundedHeads,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(drain_seconds),
    )
