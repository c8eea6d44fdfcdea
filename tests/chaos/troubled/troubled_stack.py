"""A real stack of which the disks are small, the network is a proxy's, and the functions' clock is another: for tests.

MinIO's drive, Kafka's log and the functions' scratch folder are file systems of their own (tmpfs); functions reach
MinIO, Redis and Kafka through a proxy each; and libfaketime stands between the functions and the machine's clock. All
of it is well until a test says otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from layerscope.stack.members import stack_dataplane, stack_functions, stack_servers
from layerscope.stack.process import Process
from layerscope.stack.provision import provide
from layerscope.stack.supervisor import Supervisor
from layerscope.systems import Stack, make_stack, on_free_ports
from tests.chaos import small_disk
from tests.chaos.troubled.proxy import HOST, Proxy
from tests.stack import RealStack, s3_client

DISK_BYTES: Final = 96 * 2**20
CACHED_SECONDS: Final = 1
PROXIED: Final = ("minio", "redis", "kafka")
DRIVE, SCRATCH, EVENT_LOG = DISKS = Path("data/minio/drive"), Path("scratch"), Path("data/kafka/log")


@dataclass(frozen=True)
class Clock:
    """The functions' clock: so many seconds ahead of the machine's, CACHED_SECONDS after it was set."""

    file: Path

    def ahead(self, seconds: int) -> None:
        """Set it, for those that run already as well."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.file)

    @contextmanager
    def jumped(self, seconds: int) -> Iterator[None]:
        """Have it jump, and jump back when the block ends."""
        self.ahead(seconds)
        time.sleep(2 * CACHED_SECONDS)  # by then every process has looked
        try:
            yield
        finally:
            self.ahead(0)
            time.sleep(2 * CACHED_SECONDS)

    def environment(self) -> dict[str, str]:
        """Return what puts a process under this clock; what measures durations, monotonic time, stays as it is."""
        found = importlib.util.find_spec("libfaketime")
        assert found is not None and found.submodule_search_locations
        library = Path(found.submodule_search_locations[0]) / "vendor/libfaketime/src/libfaketime.so.1"
        assert library.exists()
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": str(CACHED_SECONDS),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


@dataclass(frozen=True)
class Troubled:
    """A stack, and what can be done to it; `disks` are those that can be filled, none where mounting is not allowed."""

    real: RealStack
    proxies: Mapping[str, Proxy]
    clock: Clock
    disks: frozenset[Path]

    def hold_back(self) -> None:
        """Have no event delivered."""
        self._signal(signal.SIGSTOP)

    def deliver(self) -> None:
        """Have events delivered again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.real.pid("dataplane")
        assert pid is not None
        os.kill(pid, number)

    def full(self, disk: Path) -> AbstractContextManager[None]:
        """Leave no byte on a disk until the block ends."""
        return small_disk.full(self.real.stack.directory / disk)


@contextmanager
def running(directory: Path) -> Iterator[Troubled]:
    """Start such a stack, and stop it."""
    stack = make_stack(directory)
    clock = Clock(directory / "clock")
    clock.ahead(0)
    with ExitStack() as held:
        stack = held.enter_context(on_free_ports(stack, print))
        disks = frozenset(disk for disk in DISKS if small_disk.mounted(directory / disk, DISK_BYTES, held))
        proxies = {name: held.enter_context(Proxy(stack.ports[name])) for name in PROXIED}
        supervisor = held.enter_context(Supervisor(directory))
        supervisor.start(*(_advertised(one, proxies["kafka"].port) for one in stack_servers(stack)), say=print)
        provide(stack, print)
        far = {**_through(stack, proxies), **clock.environment()}
        functions, urls = stack_functions(stack)
        supervisor.start(*(_with(process, far) for process in functions), say=print)
        dataplane = stack_dataplane(stack, urls)
        supervisor.start(_with(dataplane, {"KAFKA_BOOTSTRAP_SERVERS": far["KAFKA_BOOTSTRAP_SERVERS"]}), say=print)
        query = held.enter_context(httpx.Client(base_url=stack.url, timeout=30))
        yield Troubled(RealStack(stack, s3_client(stack.client_environment()), query), proxies, clock, disks)


def _with(process: Process, environment: Mapping[str, str]) -> Process:
    return replace(process, environment={**process.environment, **environment})


def _through(stack: Stack, proxies: Mapping[str, Proxy]) -> dict[str, str]:
    """Return the settings that name a server, with its proxy in its place."""
    given = stack.function_environment()
    named = {
        "S3_ENDPOINT": "minio",
        "AWS_ENDPOINT_URL": "minio",
        "REDIS_URL": "redis",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka",
    }
    return {
        key: given[key].replace(f"{HOST}:{stack.ports[name]}", f"{HOST}:{proxies[name].port}")
        for key, name in named.items()
    }


def _advertised(server: Process, port: int) -> Process:
    """Have Kafka tell its clients that it is at another port: they go on there, wherever they first asked."""
    given = server.prepare
    if server.name != "kafka" or given is None:
        return server

    def prepare() -> None:
        given()
        with (server.directory or Path()).joinpath("server.properties").open("a") as file:
            file.write(f"advertised.listeners=PLAINTEXT://{HOST}:{port}\n")

    return replace(server, prepare=prepare)
