"""A replica of the stages in a process of its own, which can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.functions.stage.func import StageFunction
from layerscope.stores.directory_store import DirectoryStore
from tests.functions.bucket import services

Addresses = Sequence[Sequence[str]]
"""Of each stage, the replicas."""


class StageProcess:
    """A replica over a bucket, from its beginning until it is killed."""

    def __init__(self, folder: Path, name: str, addresses: Addresses = (), port: int = 0) -> None:
        command = [sys.executable, "-m", __name__, str(folder), name, json.dumps(addresses), str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said, "the replica has ended"
        self.port = int(said)
        self.address = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it as the system does that has no memory left; its worker ends with it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


async def serve(folder: Path, name: str, addresses: Addresses, port: int) -> None:
    """Serve until the process ends; the port is printed once requests may be sent."""
    plain = services(folder)
    given = Services(DirectoryStore(folder), plain.vectors, plain.cache, plain.log, folder / f".scratch-{name}")
    function = StageFunction()
    function.attach(given, tuple(map(tuple, addresses)))
    config = uvicorn.Config(application(function), host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])))
