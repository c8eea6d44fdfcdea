"""Of whom a stack consists: its servers, a process for each function, and the data plane that calls them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Final

from layerscope.dataplane import manifests, resources
from layerscope.events.topics import Tenant
from layerscope.functions.__main__ import names
from layerscope.functions.runtime.services import kafka_security
from layerscope.functions.runtime.settings import Settings
from layerscope.stack import readiness, servers
from layerscope.stack.environment import Stack
from layerscope.stack.kafka_node import SecuredKafka
from layerscope.stack.ports import free_ports
from layerscope.stack.process import Process
from layerscope.systems import DATAPLANE_URL, MANIFESTS

_KEPT: Final = (
    "PATH",
    "HOME",
    "TMPDIR",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LAYERSCOPE_DEVICE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",  # OpenTelemetry's headers may hold a key, and stay out
)
_LIMITS: Final = ("LAYERSCOPE_LIMIT_SECONDS", "LAYERSCOPE_LIMIT_MEMORY_MB")


def stack_servers(stack: Stack) -> tuple[Process, ...]:
    """Return the processes of MinIO, Kafka, Redis and Milvus Lite."""
    data, ports, credentials = stack.directory / "data", stack.ports, stack.credentials
    settings, held = Settings.read(stack.function_environment()), stack.certificates
    secured = None
    if held is not None:
        secured = SecuredKafka(held, credentials.kafka_broker_password, credentials.kafka_password)
    return (
        servers.minio(
            data / "minio",
            ports["minio"],
            credentials.access_key,
            credentials.secret_key,
            settings.kafka_bootstrap_servers,
            Tenant().s3_raw,
            certificates=held,
            security=kafka_security(settings),
        ),
        servers.kafka(data / "kafka", ports["kafka"], ports["controller"], secured),
        servers.redis(data / "redis", ports["redis"], credentials.redis_password, held),
        servers.milvus(data / "milvus", ports["milvus"]),
    )


def stack_functions(stack: Stack) -> dict[str, tuple[Process, str]]:
    """Return a process for each function, and its URL, by the name of its Service."""
    declared = manifests.load(MANIFESTS).services
    ports = dict(zip(names(), free_ports(len(names())), strict=True)) | {"query": stack.ports["query"]}
    made = {}
    for name, port in ports.items():
        service = name.replace("_", "-")
        environment = {
            **inherited(),
            **stack.function_environment(),
            **_limits(declared[service]),
            "LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "LAYERSCOPE_INFERENCE_URL": f"http://127.0.0.1:{ports['inference']}",
            "LAYERSCOPE_STAGE_URLS": f"http://127.0.0.1:{ports['stage']}",
            "LAYERSCOPE_SCRATCH": str(stack.directory / "scratch"),
            # One thread each: several workers with a thread a core are slower together (they share two cores here).
            "OMP_NUM_THREADS": "1",
        }
        command = (sys.executable, "-m", "layerscope.functions", name)
        grace = float(environment.get("LAYERSCOPE_LIMIT_SECONDS", 5)) + 5
        process = Process(name, command, environment, readiness.probe(port), grace_seconds=grace)
        made[service] = (process, f"http://127.0.0.1:{port}")
    return made


def stack_dataplane(stack: Stack, urls: Mapping[str, str]) -> Process:
    """Return the process of the data plane, which calls functions at these URLs, by the names of their Services."""
    (port,) = free_ports(1)
    environment = {
        **inherited(),
        **stack.function_environment(),
        "LAYERSCOPE_FUNCTIONS": json.dumps(urls),
        "LAYERSCOPE_DATAPLANE_PORT": str(port),
    }
    (stack.directory / DATAPLANE_URL).write_text(f"http://127.0.0.1:{port}\n")
    command = (sys.executable, "-m", "layerscope.dataplane")
    return Process("dataplane", command, environment, readiness.probe(port), grace_seconds=30)


def inherited() -> dict[str, str]:
    """Return what a child needs of this process's environment: never credentials that happen to be there."""
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, **servers.locale(os.environ)}


def _limits(service: resources.Service) -> dict[str, str]:
    """Return the limits of a function: those of its Service, and over them those that the environment names."""
    declared = {} if service.limit_seconds is None else {"LAYERSCOPE_LIMIT_SECONDS": f"{service.limit_seconds:g}"}
    return declared | {name: os.environ[name] for name in _LIMITS if name in os.environ}
