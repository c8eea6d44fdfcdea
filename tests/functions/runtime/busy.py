"""`python -m tests.functions.runtime.busy`: a function that computes for as many seconds as an event's size says."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from layerscope.events.cloudevent import CloudEvent, read
from layerscope.functions.runtime import func_server
from layerscope.functions.runtime.handler import WorkingFunction
from layerscope.functions.runtime.http_server import serve
from layerscope.functions.runtime.services import embedded
from layerscope.schemas.events import ModelUploaded


def ready() -> None:
    """Have nothing to import."""


def work(seconds: float) -> float:
    """Keep a core busy, in Python and in NumPy by turns."""
    until, total = time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        total += sum(float(number) for number in range(10_000)) + float(
            np.ones((200, 200)).dot(np.ones((200, 200)))[0, 0]
        )
    return total


class Busy(WorkingFunction):
    """Works, and has nothing to tell."""

    def __init__(self, directory: Path) -> None:
        super().__init__("busy", ready)
        self._directory = directory

    def start(self, cfg: Mapping[str, str]) -> None:
        """Use a directory, whatever else the environment says."""
        func_server.configure(drain_seconds=120)
        made = embedded(self._directory)
        made.store.ensure_buckets()
        self.attach(made)

    async def respond(self, event: CloudEvent) -> None:
        """Work."""
        await self.compute(event.subject, event.subject, work, float(read(event, ModelUploaded).size))


def new() -> Busy:
    """Return the function, as `func` expects it."""
    return Busy(Path(os.environ["BUSY_DIRECTORY"]))


if __name__ == "__main__":
    # By its own name: the worker does not import the program that started it, and finds `work` where it lies.
    from tests.functions.runtime import busy  # noqa: PLW0406

    address = ("127.0.0.1", int(sys.argv[2].rpartition(":")[2]))
    serve(busy.Busy(Path(sys.argv[1])), address=address, drain_seconds=120)
