"""The outside things that functions use, made once at start: the real ones, or their adapters over a directory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from layerscope.events.cloudevent import CloudEvent
from layerscope.events.kafka import to_record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import EventLog, LogUnavailable
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import EVENTS
from layerscope.functions.runtime.settings import Settings
from layerscope.functions.runtime.worker import Worker
from layerscope.models.sandbox.confinement import Sandbox, confining, has_gpus
from layerscope.schemas.errors import Unavailable
from layerscope.stores.cache import Cache, MemoryCache, RedisCache
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.s3_store import S3Store
from layerscope.stores.vector_store import MilvusStore, VectorStore


@dataclass(frozen=True, slots=True)
class Limits:
    """What one computation may use, and where."""

    seconds: float = 120
    memory_mb: int = 8_192
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Services:
    """What a function may use. All of it connects on first use, so that a function starts while a service is down."""

    store: ObjectStore
    vectors: VectorStore
    cache: Cache
    log: EventLog
    scratch: Path
    limits: Limits = Limits()
    namespace: str = "layerscope"
    worker: Worker | None = None
    """The worker of all functions where they are one process; None: each starts its own."""

    def worker_of(self, *, uploads: bool) -> Worker:
        """Return the worker for a function; one that reads `uploads` has a confined one, if need be of its own."""
        if self.worker is not None and (self.worker.confined or not uploads):
            return self.worker
        return start_worker(self.limits, self.uploads if uploads else self.scratch, uploads=uploads)

    @property
    def uploads(self) -> Path:
        """Where uploads lie while they are read: all that their worker has."""
        return self.scratch / "uploads"


def start_worker(limits: Limits, folder: Path, *, uploads: bool = False) -> Worker:
    """Return a worker that has this folder and nothing else of the machine.

    Only one that may use a GPU and reads no `uploads` is not confined: drivers need more than can be listed here.
    """
    memory = limits.memory_mb * 2**20
    if not uploads and limits.device != "cpu" and has_gpus():
        return Worker(limits.seconds, limits.memory_mb)
    return Worker(limits.seconds, limits.memory_mb, confining(Sandbox((folder,), memory=memory, devices=False)))


def connect(settings: Settings) -> Services:
    """Return the real services that the settings name."""
    secret = settings.aws_secret_access_key.get_secret_value()
    return Services(
        store=S3Store(
            settings.s3_endpoint,
            settings.aws_access_key_id,
            secret,
            public_endpoint=settings.s3_public_endpoint,
        ),
        vectors=MilvusStore(settings.milvus_uri, settings.milvus_token.get_secret_value()),
        cache=RedisCache(settings.redis_url.get_secret_value()),
        log=KafkaLog(settings.kafka_bootstrap_servers),
        scratch=settings.layerscope_scratch,
        limits=Limits(
            settings.layerscope_limit_seconds, settings.layerscope_limit_memory_mb, settings.layerscope_device
        ),
        namespace=settings.layerscope_namespace,
    )


def embedded(directory: Path) -> Services:
    """Return the services of a system that is one directory: buckets, an index in a file, an in-memory log and cache."""
    limits = Limits()
    return Services(
        store=DirectoryStore(directory),
        vectors=MilvusStore(str(directory / "index.db"), ""),
        cache=MemoryCache(),
        log=MemoryLog(),
        scratch=directory / ".scratch",
        limits=limits,
        worker=start_worker(limits, directory / ".scratch"),
    )


async def publish(services: Services, event: CloudEvent) -> None:
    """Put an event into the log, and return once it is there: for functions whose source discards answers.

    Raises:
        Unavailable: the log does not answer.
    """
    try:
        await asyncio.to_thread(services.log.publish, EVENTS, to_record(event))
    except LogUnavailable as error:
        raise Unavailable(str(error)) from error
