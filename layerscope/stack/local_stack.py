"""The real stack on this machine: servers, functions and data plane under one supervisor; `layerscope up` and `down`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from layerscope.dataplane import manifests, resources
from layerscope.events.topics import Tenant
from layerscope.functions.__main__ import names
from layerscope.functions.runtime.services import connect, kafka_security
from layerscope.functions.runtime.settings import Settings
from layerscope.initialise import initialise
from layerscope.schemas.errors import LayerscopeError
from layerscope.stack import programs, roles, servers
from layerscope.stack.kafka_node import SecuredKafka
from layerscope.stack.supervisor import AlreadyRunning, Process, Supervisor, read_status
from layerscope.systems import MANIFESTS, Stack

Say = Callable[[str], None]
START_SECONDS: Final = 120.0


class StackError(LayerscopeError):
    """The stack did not start or stop; the message says why."""


def run(stack: Stack, say: Say) -> None:
    """Run the stack until SIGTERM or Ctrl-C.

    Raises:
        AlreadyRunning: it runs in another process.
        ServerError: a server cannot be installed.
        StartError: a process did not become ready.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ready = stack.directory / "ready"
    with Supervisor(stack.directory) as supervisor:
        ready.unlink(missing_ok=True)
        programs.install(say)
        say("starting MinIO, Kafka, Redis and Milvus Lite")
        supervisor.start(*_servers(stack))
        roles.grant(stack)
        settings = Settings.read(stack.administrator_environment())
        initialise(connect(settings), say, settings)
        say(f"starting {len(names())} functions")
        functions = _functions(stack)
        supervisor.start(*(process for process, _ in functions.values()))
        supervisor.start(_dataplane(stack, {name: url for name, (_, url) in functions.items()}))
        ready.write_text(str(os.getpid()))
        say(f"ready: {stack.url}")
        ended.wait()
        say("stopping")
        ready.unlink(missing_ok=True)


def start(stack: Stack, say: Say) -> None:
    """Run the stack in the background, and return once it is ready.

    Raises:
        AlreadyRunning: it runs already.
        StackError: it did not become ready; the message ends with what it said last.
    """
    if is_running(stack.directory):
        raise AlreadyRunning(f"the stack of {stack.directory} is running")
    ready, log = stack.directory / "ready", stack.directory / "up.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "layerscope.cli", "up", "--data", str(stack.directory)]
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    shown = 0
    while not ready.exists():
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            say(line)
        shown = len(lines)
        if child.poll() is not None:
            raise StackError("\n".join(["the stack did not start", *lines[-20:]]))
        time.sleep(0.1)
    say(f"ready: {stack.url}")


def stop(directory: Path, say: Say) -> bool:
    """Stop the stack of a directory and return once it is gone; False: it was not running.

    Raises:
        StackError: it did not end.
    """
    status = read_status(directory)
    if status is None:
        return False
    say(f"stopping the stack of {directory}")
    os.kill(status.supervisor, signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while is_running(directory):
        if time.monotonic() > deadline:
            raise StackError(f"process {status.supervisor} did not end within {START_SECONDS:g} s")
        time.sleep(0.1)
    return True


def is_running(directory: Path) -> bool:
    """Tell whether a supervisor holds this directory."""
    return read_status(directory) is not None


def _servers(stack: Stack) -> tuple[Process, ...]:
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


def _functions(stack: Stack) -> dict[str, tuple[Process, str]]:
    """Return a process for each function, and its URL, by the name of its Service."""
    declared = manifests.load(MANIFESTS).services
    ports = servers.free_ports(len(names()))
    made = {}
    for name, free in zip(names(), ports, strict=True):
        port = stack.ports["query"] if name == "query" else free
        service = name.replace("_", "-")
        environment = {
            **_inherited(),
            **stack.function_environment(),
            **_limit(declared[service]),
            "LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "LAYERSCOPE_SCRATCH": str(stack.directory / "scratch"),
            # One thread each: several workers with a thread a core are slower together (they share two cores here).
            "OMP_NUM_THREADS": "1",
        }
        url = f"http://127.0.0.1:{port}"
        command = (sys.executable, "-m", "layerscope.functions", name)
        grace = float(environment.get("LAYERSCOPE_LIMIT_SECONDS", 5)) + 5
        process = Process(name, command, environment, _readiness(url), grace_seconds=grace, start_seconds=START_SECONDS)
        made[service] = (process, url)
    return made


def _limit(service: resources.Service) -> dict[str, str]:
    return {} if service.limit_seconds is None else {"LAYERSCOPE_LIMIT_SECONDS": f"{service.limit_seconds:g}"}


def _dataplane(stack: Stack, urls: Mapping[str, str]) -> Process:
    (port,) = servers.free_ports(1)
    environment = {
        **_inherited(),
        **stack.function_environment(),
        "LAYERSCOPE_FUNCTIONS": json.dumps(urls),
        "LAYERSCOPE_DATAPLANE_PORT": str(port),
    }
    command = (sys.executable, "-m", "layerscope.dataplane")
    ready = _readiness(f"http://127.0.0.1:{port}")
    return Process("dataplane", command, environment, ready, grace_seconds=30, start_seconds=START_SECONDS)


def _inherited() -> dict[str, str]:
    """Return what a child needs of this process's environment: never credentials that happen to be there."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "LAYERSCOPE_DEVICE")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _readiness(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/readiness", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    return ready
