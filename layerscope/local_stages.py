"""A model's stages on this machine, a server each, until Ctrl-C: `layerscope split DATASET/MODEL/VERSION --run`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import replace

import httpx
import uvicorn

from layerscope.client import Say
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services, connect, embedded
from layerscope.functions.runtime.settings import Settings
from layerscope.functions.stage.func import StageFunction
from layerscope.schemas.errors import LayerscopeError
from layerscope.systems import Embedded, Located, NoSystem, Remote

HOST = "127.0.0.1"


class NotRun(LayerscopeError):
    """A stage cannot be run; the message is its own."""


def services_of(system: Located) -> Services:
    """Return what a stage needs of a system of this machine.

    Raises:
        NoSystem: it is elsewhere.
    """
    match system:
        case Embedded(directory):
            return replace(
                embedded(directory), workers=None, reading_workers=None
            )  # each stage has a worker of its own
        case Remote():
            raise NoSystem(f"{system.url} is elsewhere: its operator runs stages there, by the overlay two-stages")
    return connect(Settings.read(system.function_environment()))


def run(services: Services, model: str, cuts: Sequence[int], say: Say) -> None:
    """Serve the stages between these cuts, by their numbers, until SIGTERM or Ctrl-C."""
    asyncio.run(_serving(services, model, cuts, say))


async def _serving(services: Services, model: str, cuts: Sequence[int], say: Say) -> None:
    sockets = [_bound() for _ in range(len(cuts) + 1)]
    addresses = [f"{HOST}:{one.getsockname()[1]}" for one in sockets]
    servers = []
    for _ in addresses:
        function = StageFunction()
        function.attach(services, (), model, frozenset(addresses))
        config = uvicorn.Config(application(function), log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
        servers.append((function, uvicorn.Server(config)))
    serving = [
        asyncio.ensure_future(server.serve(sockets=[bound]))
        for (_, server), bound in zip(servers, sockets, strict=True)
    ]
    try:
        await _configured(addresses, cuts, say)
        await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for _, server in servers:
            server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            await asyncio.gather(*serving)
        for function, _ in servers:
            function.stop()


async def _configured(addresses: Sequence[str], cuts: Sequence[int], say: Say) -> None:
    bounds = [0, *cuts]
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        for number, (address, start) in enumerate(zip(addresses, bounds, strict=True)):
            last = number == len(cuts)
            asked: dict[str, str | int] = {
                "start": start,
                "end": start + 1 if last else cuts[number],
                "nextaddr": "None" if last else addresses[number + 1],
            }
            answer = await client.get(f"http://{address}/configure", params=asked)
            if answer.is_error:
                said = answer.json()
                raise NotRun(f"{said['error']} {said.get('hint', '')}".strip())
            say(f"stage {number + 1} of {len(addresses)}: http://{address}")
    say(f"curl -F file=@picture.png http://{addresses[0]}/predict")


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, 0))
    return made
