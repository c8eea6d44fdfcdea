"""The whole system in one process: the same functions and the same data plane, over a directory and an in-memory log."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import httpx

from layerscope.dataplane import manifests
from layerscope.dataplane.plane import DataPlane
from layerscope.dataplane.subscribers import client_of
from layerscope.events.kafka import KafkaMessage
from layerscope.events.topics import S3_RAW
from layerscope.functions.__main__ import names
from layerscope.functions.replay.func import Replay, still_missing
from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services, embedded
from layerscope.initialise import initialise
from layerscope.schemas import keys
from layerscope.stores.object_store import Object
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.systems import MANIFESTS

ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Running:
    """An embedded system at work."""

    services: Services
    query: httpx.AsyncClient
    plane: DataPlane
    replay: Replay

    async def put(self, key: str, content: bytes | Path) -> None:
        """Put an object into the bucket of uploads, and notify of it as an object store does."""
        await asyncio.to_thread(self.services.store.put, keys.MODELS, key, content)
        stored = await asyncio.to_thread(self.services.store.head, keys.MODELS, key)
        if stored is not None:
            await asyncio.to_thread(self.services.log.publish, S3_RAW, _notification(stored))

    async def settle(self) -> None:
        """Run until nothing is queued and nothing is missing."""
        known = KnownOutcomes()
        for _ in range(ROUNDS):
            await self.plane.idle()
            asks = await asyncio.to_thread(still_missing, self.services, known)
            if not asks:
                return
            await self.replay.ask(asks)


@asynccontextmanager
async def running(directory: Path, say: Callable[[str], None]) -> AsyncIterator[Running]:
    """Run every function over a directory until the block ends."""
    # The worker has this machine's cores to share with the caller; more threads only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    services = embedded(directory)
    await asyncio.to_thread(initialise, services, say)
    functions = {name: importlib.import_module(f"layerscope.functions.{name}.func").new() for name in names()}
    clients = {name.replace("_", "-"): client_of(application(function)) for name, function in functions.items()}
    for name, function in functions.items():
        also = {"inference": clients["inference"]} if name == "query" else {}
        function.attach(services, **also)
    plane = DataPlane(manifests.load(MANIFESTS), services.log, clients)
    work = asyncio.create_task(plane.run())
    replay = functions["replay"]
    assert isinstance(replay, Replay)
    try:
        yield Running(services, clients["query"], plane, replay)
    finally:
        await plane.stop()
        await work
        for function in functions.values():
            function.stop()
        for client in clients.values():
            await client.aclose()
        services.vectors.close()


class WaitingInference:
    """`inference` over a directory, which starts with the first picture: most who read have none."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._function: Any = None
        self.client = client_of(self._handle)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._function is None:
            self._function = importlib.import_module("layerscope.functions.inference.func").new()
            self._function.attach(self._services)
        await self._function.handle(scope, receive, send)

    def stop(self) -> None:
        """End its worker, if it started."""
        if self._function is not None:
            self._function.stop()


@asynccontextmanager
async def reading(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Answer queries about a directory until the block ends; nothing is computed but what pictures are asked about."""
    services = embedded(directory)
    inference = WaitingInference(services)
    query = importlib.import_module("layerscope.functions.query.func").new()
    query.attach(services, inference=inference.client)
    async with client_of(query.handle) as client:
        yield client
    query.stop()
    inference.stop()
    services.vectors.close()


def _notification(stored: Object) -> KafkaMessage:
    """Return what an object store would say of a put, in the form of an S3 record."""
    record = {
        "eventVersion": "2.0",
        "eventSource": "aws:s3",
        "eventName": "s3:ObjectCreated:Put",
        "eventTime": stored.modified.isoformat(),
        "s3": {
            "bucket": {"name": keys.MODELS},
            "object": {
                "key": quote_plus(stored.key),
                "size": stored.size,
                "eTag": stored.etag,
                "sequencer": f"{time.time_ns():016X}",
            },
        },
    }
    value = json.dumps({"Records": [record]}).encode()
    return KafkaMessage(key=f"{keys.MODELS}/{stored.key}".encode(), value=value, headers=())
