"""The data plane as a process: settings from the environment, health and metrics over HTTP, a drain on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from layerscope.dataplane.delivery import Tally
from layerscope.dataplane.manifests import load
from layerscope.dataplane.plane import DataPlane, SubscriptionStatus
from layerscope.dataplane.subscribers import client_at
from layerscope.events.topics import TOPICS, Topic
from layerscope.functions.runtime import logs
from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.systems import MANIFESTS

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS: Final = 2


def main(manifests: Path = MANIFESTS, topics: Iterable[Topic] = TOPICS) -> None:
    """Run what a rendering declares until SIGTERM; `topics` are those that `init` makes.

    Ends with status 1 if the data plane ends by itself, as only a bug can.
    """
    # Kafka's client takes long to import, and only the process needs it.
    from layerscope.events.kafka_log import KafkaLog
    from layerscope.functions.runtime.services import kafka_security
    from layerscope.functions.runtime.settings import KafkaSettings

    logs.configure()
    settings = KafkaSettings.read(os.environ)
    log = KafkaLog(settings.kafka_bootstrap_servers, security=kafka_security(settings))
    clients = {name: client_at(url) for name, url in json.loads(os.environ["LAYERSCOPE_FUNCTIONS"]).items()}
    process = DataPlaneProcess(DataPlane(load(manifests, topics), log, clients))
    config = uvicorn.Config(
        process,
        host="127.0.0.1",
        port=int(os.environ.get("LAYERSCOPE_DATAPLANE_PORT", "8090")),
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    process.ended = partial(setattr, server, "should_exit", True)
    server.run()
    log.close()
    if process.fault is not None:
        sys.exit(1)


class DataPlaneProcess:
    """The ASGI application around a data plane: it runs as long as this is served, and drains before the end.

    Answers `/health/liveness`, `/health/readiness`, `/metrics` for Prometheus, and the same as JSON under `/status`.
    """

    def __init__(self, plane: DataPlane) -> None:
        """Prepare; `ended` is called when the data plane ends, and `fault` then tells why, if it was not stopped."""
        self.ended: Callable[[], None] = lambda: None
        self.fault: BaseException | None = None
        self._plane = plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run from the server's start to its end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        status, media_type, body = await self._answer(scope["path"])
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, path: str) -> tuple[int, str, bytes]:
        match path:
            case "/health/liveness":
                return 200, "text/plain", b"alive"
            case "/health/readiness" if self._plane.ready:
                return 200, "text/plain", b"ready"
            case "/health/readiness":
                return 503, "text/plain", b"not every subscription reads its topic yet"
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, exposition(await self._plane.status())
            case "/status":
                statuses = [asdict(one) for one in await self._plane.status()]
                return 200, "application/json", json.dumps(statuses).encode()
        return 404, "text/plain", b"there is /health/liveness, /health/readiness, /metrics and /status"

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        work = asyncio.create_task(self._plane.run())
        work.add_done_callback(self._end)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._plane.stop()
        await asyncio.wait((work,))
        await send({"type": "lifespan.shutdown.complete"})

    def _end(self, work: asyncio.Task[None]) -> None:
        self.fault = work.exception()
        if self.fault is not None:
            logger.critical("the data plane ended", exc_info=self.fault)
        self.ended()


def exposition(statuses: list[SubscriptionStatus]) -> bytes:
    """Return the statuses as Prometheus reads them, one series for each subscription."""
    return generate_latest(_Snapshot(tuple(statuses)))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    statuses: tuple[SubscriptionStatus, ...]

    def collect(self) -> Iterator[Metric]:
        for name, meaning in (
            ("lag", "records that are not finished, at most 10000"),
            ("in_flight", "events being delivered, those waiting for a retry included"),
        ):
            gauge = GaugeMetricFamily(f"layerscope_dataplane_{name}", meaning, labels=["subscription"])
            for one in self.statuses:
                value = getattr(one, name)
                if value is not None:
                    gauge.add_metric([one.name], value)
            yield gauge
        for field in fields(Tally):
            counter = CounterMetricFamily(f"layerscope_dataplane_{field.name}", field.name, labels=["subscription"])
            for one in self.statuses:
                counter.add_metric([one.name], getattr(one, field.name))
            yield counter
