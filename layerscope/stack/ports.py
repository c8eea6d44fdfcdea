"""On which ports the servers of a stack listen: those that they usually have, or others where those are taken.

A running stack holds its ports by a lock on a file for each, so that another one of the same user does not settle on the
port of a server that is down for a moment, or about to start.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import stat
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Final

from layerscope.stack.file_lock import try_lock
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
            if not _is_held(port):
                ports.append(port)
    raise ServerError(f"no {count} free ports from {RANGE.start} to {RANGE.stop - 1}")


def is_free(port: int) -> bool:
    """Tell whether nothing listens on a port of 127.0.0.1 now, and no stack of this user holds it."""
    return _is_quiet(port) and not _is_held(port)


class HeldPorts(ExitStack):
    """Ports that one stack has for itself until it leaves this context, or its process ends."""

    def take(self, port: int) -> bool:
        """Hold a port that is free; False: it is somebody else's."""
        with ExitStack() as trial:
            file = _file(port)
            if file is not None and not _locked(trial.enter_context(file)):
                return False
            if not _is_quiet(port):
                return False
            self.push(trial.pop_all())
        return True


def _is_quiet(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _is_held(port: int) -> bool:
    file = _file(port)
    if file is None:
        return False
    with file:
        return not _locked(file)


def _locked(file: IO[str]) -> bool:
    try:
        return try_lock(file, fcntl.LOCK_EX)
    except OSError:  # a file system without locks: ports are only tried
        return True


def _file(port: int) -> IO[str] | None:
    """Return the file by which a port is held; None where none of this user's can be written, and ports are only tried."""
    folder = Path(tempfile.gettempdir()) / f"layerscope-ports-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return None
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(folder / str(port), flags, 0o600), "r+")
    except OSError:
        return None
