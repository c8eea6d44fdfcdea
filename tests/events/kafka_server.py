"""A real Kafka for tests: started on a free port, killed and started again by its id, stopped at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layerscope.stack import servers
from layerscope.stack.ports import free_ports
from layerscope.stack.supervisor import Supervisor, read_status


@dataclass(frozen=True)
class KafkaServer:
    bootstrap_servers: str
    directory: Path

    def pid(self) -> int | None:
        status = read_status(self.directory)
        return None if status is None else status.processes[0].pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; when killed, its supervisor starts it again at once, and it answers some seconds later.

        Returns once each thread stands still, where it is told to stop.
        """
        pid = self.pid()
        assert pid is not None
        os.kill(pid, number)
        while number == signal.SIGSTOP and not all(map(_stopped, Path(f"/proc/{pid}/task").iterdir())):
            time.sleep(0.01)

    def wait_for_restart(self, seconds: float = 90) -> None:
        """Return when it answers, after it was killed for the first time."""
        deadline = time.monotonic() + seconds
        while True:
            status = read_status(self.directory)
            if status is not None and status.processes[0].restarts > 0 and status.processes[0].ready:
                return
            assert time.monotonic() < deadline, f"Kafka is not back after {seconds:g} s"
            time.sleep(0.1)


def _stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def broker_ports() -> tuple[int, int]:
    """Return a port for the broker and one for the controller."""
    port, controller_port = free_ports(2)
    return port, controller_port


@contextmanager
def running(directory: Path, ports: tuple[int, int] | None = None) -> Iterator[KafkaServer]:
    """Run one Kafka node in this directory."""
    port, controller_port = ports or broker_ports()
    home = directory / "kafka"
    home.mkdir(exist_ok=True)
    with Supervisor(directory) as supervisor:
        supervisor.start(servers.kafka(home, port, controller_port))
        yield KafkaServer(f"{servers.HOST}:{port}", directory)
