"""`layerscope inspect`: a model file is read in a process of its own, confined as the one in which `admit` reads is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from layerscope.functions.runtime.services import Limits
from layerscope.functions.runtime.worker import Worker
from layerscope.models.inspection_report import Inspection
from layerscope.models.sandbox.confinement import Sandbox, confining


async def inspect(path: Path, architecture: str | None = None) -> Inspection:
    """Return what is in a model file; `architecture` is a name, or the path of a JSON file of blocks.

    Raises:
        WorkFailed: it came to no end, or passed the limits that `admit` has too.
    """
    with reader(path, *([Path(architecture)] if architecture else [])) as worker:
        return await worker.run(_inspected, path, architecture)


@contextmanager
def reader(*files: Path) -> Iterator[Worker]:
    """Run a worker that may read these files and nothing else of the user's, as far as the kernel sees to that."""
    limits = Limits()
    with TemporaryDirectory() as folder:
        sandbox = Sandbox((Path(folder),), files, memory=limits.memory_mb * 2**20, devices=False)
        worker = Worker(limits.seconds, limits.memory_mb, confining(sandbox))
        try:
            yield worker
        finally:
            worker.stop()


def _inspected(path: Path, architecture: str | None) -> Inspection:
    from layerscope.models.inspection import inspect  # torch, which only the worker needs

    return inspect(path, architecture)
