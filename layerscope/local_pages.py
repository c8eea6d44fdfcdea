"""The pages and answers of a system that is one directory, on loopback: `layerscope serve`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layerscope.embedded import WaitingInference
from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.guard import LOOPBACK, Guard
from layerscope.functions.runtime.http_server import serve
from layerscope.functions.runtime.services import embedded


class DirectoryQuery(QueryFunction):
    """`query` over a directory; it computes nothing but what pictures are asked about."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._inference: WaitingInference | None = None

    def start(self, cfg: Mapping[str, str]) -> None:
        """Open the directory."""
        services = embedded(self._directory)
        self._inference = WaitingInference(services)
        self.attach(services, Guard(hosts=LOOPBACK), self._inference.client)

    def stop(self) -> None:
        """Let go of what was used, and end what ran models."""
        super().stop()
        if self._inference is not None:
            self._inference.stop()


def run(directory: Path, port: int) -> None:
    """Answer at 127.0.0.1 until SIGTERM or Ctrl-C."""
    serve(DirectoryQuery(directory), address=("127.0.0.1", port), drain_seconds=5)
