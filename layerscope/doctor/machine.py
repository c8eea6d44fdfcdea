"""What this computer needs to run things itself."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from typing import Final

from layerscope.doctor.checks import Check, Wrong
from layerscope.stack import programs

FREE_GB: Final = 10


def checks() -> list[Check]:
    """Return the checks of a machine on which models are computed, or the real stack is run."""
    return [
        Check("python", platform.python_version),
        Check("torch", lambda: _package("torch", "pip install 'layerscope[compute]'")),
        Check("crc32c", lambda: _package("crc32c", "pip install crc32c: Kafka is 18 times slower without")),
        Check("disk", _disk),
        Check("programs of the real stack", _programs),
    ]


def _package(name: str, advice: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise Wrong("missing", advice)
    return "installed"


def _disk() -> str:
    free = shutil.disk_usage(".").free / 1e9
    if free <= FREE_GB:
        raise Wrong(f"{free:.0f} GB free", f"make space: {FREE_GB} GB are needed")
    return f"{free:.0f} GB free"


def _programs() -> str:
    if missing := programs.missing_programs():
        advice = "only `layerscope up` needs them; install them with the system's package manager"
        raise Wrong(", ".join(missing), advice)
    return "all there"
