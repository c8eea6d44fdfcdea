"""A disk that is small, and can be filled to its last byte: a tmpfs, which only root may mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


def mounted(folder: Path, size: int, held: ExitStack) -> bool:
    """Make a folder a disk of `size` bytes until all is over; False where this user may not."""
    folder.mkdir(parents=True, exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mounting, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    if any(said in done.stderr for said in ("permission denied", "must be superuser", "not permitted")):
        return False
    assert done.returncode == 0, done.stderr
    held.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
    return True


@contextmanager
def full(disk: Path, *, leaving: int = 0) -> Iterator[None]:
    """Leave no byte on a disk, or so many, until the block ends."""
    ballast = disk / ".ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
            os.truncate(ballast, ballast.stat().st_size - leaving)
        yield
    finally:
        ballast.unlink(missing_ok=True)
