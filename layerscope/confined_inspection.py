"""`layerscope inspect`: model files are read in a process of their own, confined as the one in which `admit` reads is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from layerscope.functions.runtime.services import Limits
from layerscope.functions.runtime.worker import Worker
from layerscope.models.file_kinds import sniff
from layerscope.models.inspection_report import Inspection
from layerscope.models.sandbox.confinement import Sandbox, confining
from layerscope.schemas.errors import WorkFailed


async def inspect(
    files: Sequence[Path], architecture: str | None = None, images: str | None = None
) -> AsyncIterator[Inspection]:
    """Yield what is in each model file; `architecture` is a name, or the path of a JSON file of blocks, `images` `3x224x224`.

    One process reads them, one after the other. A file whose reading comes to no end, or passes a limit that `admit` has
    too, has `failed`, and nothing of the others.
    """
    with reader(*files, *([Path(architecture)] if architecture else [])) as worker:
        for file in files:
            try:
                yield await worker.run(_inspected, file, architecture, images)
            except WorkFailed as failed:
                yield Inspection(file=str(file), size=file.stat().st_size, format=sniff(file), failed=str(failed))


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


def _inspected(path: Path, architecture: str | None, images: str | None) -> Inspection:
    from layerscope.models.inspection import inspect  # torch, which only the worker needs

    return inspect(path, architecture, images)
