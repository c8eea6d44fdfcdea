"""The pages and answers of a system that is one directory, on loopback: `layerscope serve`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.guard import LOOPBACK, Guard
from layerscope.functions.runtime.http_server import serve
from layerscope.functions.runtime.services import embedded


class DirectoryQuery(QueryFunction):
    """`query` over a directory; it computes nothing."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def start(self, cfg: Mapping[str, str]) -> None:
        """Open the directory."""
        self.attach(embedded(self._directory), Guard(hosts=LOOPBACK))


def run(directory: Path, port: int) -> None:
    """Answer at 127.0.0.1 until SIGTERM or Ctrl-C."""
    serve(DirectoryQuery(directory), address=("127.0.0.1", port), drain_seconds=5)
