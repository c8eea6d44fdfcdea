"""The outside things that functions use, made once at start: the real ones, or their adapters over a directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from layerscope.events.cloudevent import CloudEvent
from layerscope.events.kafka import to_record
from layerscope.events.kafka_connection import Security
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import EventLog, LogUnavailable
from layerscope.events.memory import MemoryLog
from layerscope.events.tls import client_context
from layerscope.events.topics import Tenant
from layerscope.functions.runtime.kept_inputs import KeptInputs
from layerscope.functions.runtime.settings import KafkaSettings, ObjectStoreSettings, Settings
from layerscope.functions.runtime.tracing import UNTRACED, Tracing, Upload, begun, tracing
from layerscope.functions.runtime.worker import Worker
from layerscope.functions.runtime.worker_pool import Share, WorkerPool
from layerscope.models.sandbox.confinement import Sandbox, confining, has_gpus
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.events import ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.stores import uploads
from layerscope.stores.cache import Cache, MemoryCache, RedisCache
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.s3_connection import pool
from layerscope.stores.s3_credentials import WebIdentity
from layerscope.stores.s3_store import S3Store
from layerscope.stores.vector_store import MilvusStore, VectorStore


@dataclass(frozen=True, slots=True)
class Limits:
    """What one computation may use, and where."""

    seconds: float = 120
    memory_mb: int = 8_192
    device: str = "auto"
    neighbours_mb: int = 512
    inference_mb: int = 2_048


@dataclass(frozen=True, slots=True)
class Services:
    """What a function may use. All of it connects on first use, so that a function starts while a service is down."""

    store: ObjectStore
    vectors: VectorStore
    cache: Cache
    log: EventLog
    scratch: Path
    limits: Limits = Limits()
    tenant: Tenant = field(default_factory=Tenant)
    tracing: Tracing = UNTRACED
    workers: WorkerPool | None = None
    """The workers that functions of one process share; None: each has one of its own, and starts it at once."""
    reading_workers: WorkerPool | None = None
    """The same for what reads uploads."""
    inputs: KeptInputs = field(default_factory=KeptInputs)

    def workers_for(self, function: str, warming: Callable[[], None], *, uploads: bool = False) -> Share:
        """Return where a function computes; one that reads `uploads` does it where there is nothing else."""
        shared = self.reading_workers if uploads else self.workers
        folder = self.uploads if uploads else self.scratch
        pool = shared or WorkerPool(1, lambda: new_worker(self.limits, folder, uploads=uploads))
        return Share(pool, function, warming)

    @property
    def warms_early(self) -> bool:
        """Tell whether workers start before there is work: not where many functions share the machine."""
        return self.workers is None

    @property
    def uploads(self) -> Path:
        """Where uploads lie while they are read: all that their worker has."""
        return self.scratch / "uploads"


def new_worker(limits: Limits, folder: Path, *, uploads: bool = False) -> Worker:
    """Return a worker that has this folder and nothing else of the machine.

    Only one that may use a GPU and reads no `uploads` is not confined: drivers need more than can be listed here.
    """
    memory = limits.memory_mb * 2**20
    if not uploads and limits.device != "cpu" and has_gpus():
        return Worker(limits.seconds, limits.memory_mb)
    return Worker(limits.seconds, limits.memory_mb, confining(Sandbox((folder,), memory=memory, devices=False)))


def connect(settings: Settings) -> Services:
    """Return the real services that the settings name, with the workers that they say are shared.

    Raises:
        CertificateUnusable: a file of certificates that they name is none.
        TracingUnavailable: spans are to be exported, and the packages for it are not installed.
    """
    limits, scratch, workers = limits_of(settings), settings.layerscope_scratch, None
    if settings.layerscope_workers is not None:
        workers = WorkerPool(settings.layerscope_workers, lambda: new_worker(limits, scratch))
    token, url = settings.milvus_token.get_secret_value(), settings.redis_url.get_secret_value()
    for cafile in (settings.milvus_ssl_cafile, settings.redis_ssl_cafile):
        client_context(cafile)  # their clients read it late, and then say little
    return Services(
        store=object_store(settings),
        vectors=MilvusStore(settings.milvus_uri, token, cafile=settings.milvus_ssl_cafile, index=settings.milvus_index),
        cache=RedisCache(url, cafile=settings.redis_ssl_cafile, namespace=settings.layerscope_namespace),
        log=KafkaLog(settings.kafka_bootstrap_servers, security=kafka_security(settings)),
        scratch=scratch,
        limits=limits,
        tenant=tenant(settings),
        tracing=tracing(settings.otel_exporter_otlp_endpoint, settings.otel_exporter_otlp_traces_endpoint),
        workers=workers,
    )


def limits_of(settings: Settings) -> Limits:
    """Return what one computation may use by these settings."""
    return Limits(
        settings.layerscope_limit_seconds,
        settings.layerscope_limit_memory_mb,
        settings.layerscope_device,
        settings.layerscope_neighbours_mb,
        settings.layerscope_inference_mb,
    )


def object_store(settings: ObjectStoreSettings) -> S3Store:
    """Return the object store that the settings name."""
    http = pool(client_context(settings.aws_ca_bundle))
    web_identity = None
    if settings.aws_access_key_id is None and settings.aws_web_identity_token_file is not None:
        web_identity = WebIdentity(
            settings.aws_web_identity_token_file,
            endpoint=settings.aws_endpoint_url_sts or f"https://sts.{settings.region}.amazonaws.com",
            role_arn=settings.aws_role_arn,
            session_name=settings.aws_role_session_name,
            http=http,
        )
    return S3Store(
        settings.s3_endpoint,
        settings.aws_access_key_id or "",
        settings.aws_secret_access_key.get_secret_value(),
        session_token=settings.aws_session_token.get_secret_value() or None,
        credentials=web_identity,
        region=settings.region,
        style=settings.s3_addressing_style,
        buckets=settings.buckets,
        public_endpoint=settings.s3_public_endpoint,
        http=http,
    )


def kafka_security(settings: KafkaSettings) -> Security:
    """Return how the settings say that Kafka is spoken to."""
    tls = None
    if settings.kafka_security_protocol.endswith("SSL"):
        tls = client_context(settings.kafka_ssl_cafile, settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    password = settings.kafka_sasl_password.get_secret_value()
    has_certificate = settings.kafka_ssl_certfile is not None
    return Security(settings.kafka_sasl_mechanism, settings.kafka_sasl_username, password, tls, has_certificate)


def tenant(settings: Settings) -> Tenant:
    """Return the names of this system's topics and groups."""
    return Tenant(settings.layerscope_namespace, settings.layerscope_topic_prefix, settings.layerscope_partitions)


def embedded(directory: Path) -> Services:
    """Return the services of a system that is one directory: buckets, an index in a file, an in-memory log and cache."""
    limits = Limits()
    workers = WorkerPool(1, lambda: new_worker(limits, directory / ".scratch"))
    return Services(
        store=DirectoryStore(directory),
        vectors=MilvusStore(str(directory / "index.db"), ""),
        cache=MemoryCache(),
        log=MemoryLog(),
        scratch=directory / ".scratch",
        limits=limits,
        workers=workers,
        reading_workers=workers if workers.confined else None,
    )


async def publish(services: Services, event: CloudEvent) -> None:
    """Put an event into the log, and return once it is there: for functions whose source discards answers.

    An event that names no trace begins one here, or goes on with that of the upload it is about.

    Raises:
        Unavailable: the log does not answer.
    """
    try:
        event = await asyncio.to_thread(begun, event, partial(_upload_of, services.store, event))
        with services.tracing.publishing(event):
            await asyncio.to_thread(services.log.publish, services.tenant.events, to_record(event))
    except LogUnavailable as error:
        raise Unavailable(str(error)) from error


def _upload_of(store: ObjectStore, event: CloudEvent) -> Upload | None:
    """Return the upload that a request is about; None where there is none, or the store does not say."""
    if event.type != ProductRequested.type:
        return None
    try:
        found = uploads.current(store, Identity.parse(event.subject))
    except (ValueError, Unavailable):
        return None
    return (found.key, found.etag) if found else None
