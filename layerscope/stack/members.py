"""Of whom a stack consists: its servers, the hosts of its functions, and the data plane that calls them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from layerscope.dataplane import manifests, resources
from layerscope.events.topics import Tenant
from layerscope.functions.runtime.services import kafka_security
from layerscope.functions.runtime.settings import Settings, WebhookSettings
from layerscope.stack import readiness, servers
from layerscope.stack.environment import Stack
from layerscope.stack.hosts import hosts
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
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",  # OpenTelemetry's headers may hold a key, and stay out
)
_LIMITS: Final = tuple(
    name.upper() for name in Settings.model_fields if name.startswith("layerscope_limit_") or name.endswith("_mb")
)
"""What a user may set for the functions of a stack: how much each may take."""
_WEBHOOK: Final = tuple(name.upper() for name in WebhookSettings.model_fields if "webhook" in name)
"""What `notify` alone is given: it is secret."""


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


def stack_functions(stack: Stack) -> tuple[tuple[Process, ...], dict[str, str]]:
    """Return a process for each host of functions, and the URL of each function's host by the name of its Service."""
    declared, made = manifests.load(MANIFESTS).services, hosts()
    ports = dict(zip((one.name for one in made), free_ports(len(made)), strict=True))
    ports |= {"query": stack.ports["query"]}
    processes: list[Process] = []
    urls: dict[str, str] = {}
    for host in made:
        services = [name.replace("_", "-") for name in host.functions]
        environment = {
            **inherited(),
            **stack.function_environment(),
            **_limits(declared[name] for name in services),
            "LISTEN_ADDRESS": f"127.0.0.1:{ports[host.name]}",
            "LAYERSCOPE_WORKERS": _workers(host.workers),
            "LAYERSCOPE_INFERENCE_URL": f"http://127.0.0.1:{ports['inference']}/inference",
            "LAYERSCOPE_STAGE_URLS": f"http://127.0.0.1:{ports['inference']}/stage",
            "LAYERSCOPE_SCRATCH": str(stack.directory / "scratch"),
            # One thread each: several workers with a thread a core are slower together (they share two cores here).
            "OMP_NUM_THREADS": "1",
            **({name: os.environ[name] for name in _WEBHOOK if name in os.environ} if "notify" in services else {}),
        }
        command = (sys.executable, "-m", "layerscope.functions", *host.functions)
        grace = float(environment.get("LAYERSCOPE_LIMIT_SECONDS", 5)) + 5
        ready = readiness.probe(ports[host.name])
        processes.append(Process(host.name, command, environment, ready, grace_seconds=grace))
        urls |= dict.fromkeys(services, f"http://127.0.0.1:{ports[host.name]}")
    return tuple(processes), urls


def _workers(declared: int) -> str:
    """Return how many computing processes a host has: of those that share several, as many as the environment says."""
    given = os.environ.get("LAYERSCOPE_WORKERS")
    return given if given and declared > 1 else str(declared)


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


def _limits(services: Iterable[resources.Service]) -> dict[str, str]:
    """Return the limits of a host: the longest of its Services', and over them those that the environment names."""
    seconds = max((one.limit_seconds for one in services if one.limit_seconds is not None), default=None)
    declared = {} if seconds is None else {"LAYERSCOPE_LIMIT_SECONDS": f"{seconds:g}"}
    return declared | {name: os.environ[name] for name in _LIMITS if name in os.environ}
