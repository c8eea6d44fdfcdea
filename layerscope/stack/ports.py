"""On which ports the servers of a stack listen: those that they usually have, or others where those are taken."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

from layerscope.stack.servers import free_ports

PORTS: Final = {"query": 8080, "minio": 9000, "kafka": 9092, "controller": 9093, "redis": 6379, "milvus": 19530}


def choose(kept: Mapping[str, int], usual: Mapping[str, int]) -> dict[str, int]:
    """Return a port for each server: one that is kept, the usual one where that is free, or any other."""
    given = {**{name: port for name, port in usual.items() if is_free(port)}, **kept}
    others = (port for port in free_ports(2 * len(PORTS)) if port not in given.values())
    return {name: given.get(name) or next(others) for name in PORTS}


def is_free(port: int) -> bool:
    """Tell whether nothing listens on a port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
