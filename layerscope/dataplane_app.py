"""The data plane as a process: settings from the environment, health and metrics over HTTP, a drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from events.log import EventLog
from functions.server import JsonLines
from layerscope.dataplane import DataPlane, SubscriptionStatus
from layerscope.delivery import Tally
from layerscope.manifests import load
from layerscope.subscribers import client_at
from layerscope.systems import MANIFESTS

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS: Final = 2


def main() -> None:
    """Run until SIGTERM; ends with status 1 if the data plane ends by itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx", "kafka", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    from events.kafka_log import KafkaLog  # its client takes long to import, and only the process needs it

    functions = json.loads(os.environ["LAYERSCOPE_FUNCTIONS"])
    log = KafkaLog(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    serve(log, functions, int(os.environ.get("LAYERSCOPE_DATAPLANE_PORT", "8090")))


def serve(log: EventLog, functions: Mapping[str, str], port: int) -> None:
    """Run the data plane of `knative/` over a log and functions at these URLs, by the names of their Services.

    Raises:
        SystemExit: it ended by itself, which only a bug can make it do.
    """
    clients = {name: client_at(url) for name, url in functions.items()}
    plane = DataPlane(load(MANIFESTS), log, clients)
    faults: list[BaseException] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        def ended(task: asyncio.Task[None]) -> None:
            if fault := task.exception():
                logger.critical("the data plane ended", exc_info=fault)
                faults.append(fault)
            server.should_exit = True

        work = asyncio.create_task(plane.run())
        work.add_done_callback(ended)
        yield
        await plane.stop()
        for client in clients.values():
            await client.aclose()
        await asyncio.to_thread(log.close)

    app = application(plane, lifespan)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run()
    if faults:
        sys.exit(1)


def application(plane: DataPlane, lifespan: Any = None) -> FastAPI:
    """Return what the process answers: health, `/metrics` for Prometheus, and the same as JSON under `/status`."""
    app = FastAPI(openapi_url=None, lifespan=lifespan)

    @app.get("/health/liveness")
    async def alive() -> Response:
        return Response("alive", media_type="text/plain")

    @app.get("/health/readiness")
    async def ready() -> Response:
        if plane.ready:
            return Response("ready", media_type="text/plain")
        return Response("not every subscription reads its topic yet", status_code=503, media_type="text/plain")

    @app.get("/status")
    async def status() -> list[dict[str, Any]]:
        return [asdict(one) for one in await plane.status()]

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(await plane.status()), media_type=CONTENT_TYPE_LATEST)

    return app


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
