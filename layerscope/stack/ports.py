"""On which ports the servers of a stack listen: those that they usually have, or others where those are taken."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from layerscope.stack.kafka_node import HOST
from layerscope.stack.programs import ServerError

PORTS: Final = {"query": 8080, "minio": 9000, "kafka": 9092, "controller": 9093, "redis": 6379, "milvus": 19530}


RANGE: Final = range(
    20000, 32000
)  # below those that the kernel lends to outgoing connections, so free again after a restart


def choose(kept: Mapping[str, int], usual: Mapping[str, int]) -> dict[str, int]:
    """Return a port for each server: one that is kept, the usual one where that is free, or any other."""
    given = {**{name: port for name, port in usual.items() if is_free(port)}, **kept}
    others = (port for port in free_ports(2 * len(PORTS)) if port not in given.values())
    return {name: given.get(name) or next(others) for name in PORTS}


def free_ports(count: int) -> tuple[int, ...]:
    """Return different ports on which nothing listens now. Raises ServerError when there are not that many."""
    ports: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(ports) == count:
            return tuple(ports)
        with suppress(OSError), socket.socket() as trial:
            trial.bind((HOST, port))
            ports.append(port)
    raise ServerError(f"no {count} free ports from {RANGE.start} to {RANGE.stop - 1}")


def is_free(port: int) -> bool:
    """Tell whether nothing listens on a port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
