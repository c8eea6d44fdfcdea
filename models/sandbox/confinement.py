"""What the computing process puts on itself before it sees anything of a user's: no files but its own, no network, no
other programs, limits on memory and on what it writes.

Each part is put on where the kernel allows it; what is in force is returned, so that it can be reported. Nothing here is
what makes reading an upload safe: no reader executes what it reads. It bounds what a mistake in one could do.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.models.sandbox import landlock, seccomp

_FILE_SIZE: Final = 8 * 2**30
_TASKS: Final = 4_096
"""Processes and threads of one user, where the kernel counts them: root's it does not."""
_SYSTEM: Final = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel",
    "/proc/sys/vm",
    "/proc/driver/nvidia",
    "/sys/bus/pci/devices",
    "/sys/devices",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
    "/sys/module/nvidia",
    "/dev/random",
    "/dev/urandom",
)
_VARIABLES: Final = (
    *("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
    *("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "TORCH_", "CUDA_", "NVIDIA_"),
)
"""How the names of the variables begin that stay."""
_SHARED: Final = ("/dev/null", "/dev/zero", "/dev/shm")
_GPUS: Final = ("nvidia*", "dri", "kfd")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a computing process may have besides Python and its libraries: folders to write and to read, memory in bytes.

    The first folder to write is where temporary files go. `devices`: whether it may use the machine's GPUs.
    """

    write: tuple[Path, ...]
    read: tuple[Path, ...] = ()
    memory: int | None = None
    devices: bool = True


@dataclass(frozen=True, slots=True)
class Level:
    """What is in force: `files` and `network` as far as they are closed, new `processes` forbidden, and resource limits.

    `missing` says of each other part why the kernel does not have it.
    """

    files: bool
    network: str
    processes: bool
    limits: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, bool]:
        """Which parts are in force."""
        everything = self.network == "all"
        return {"files": self.files, "network": everything, "processes": self.processes, "limits": bool(self.limits)}

    def __str__(self) -> str:
        parts = ["files"] * self.files + [f"network ({self.network})"] * bool(self.network)
        parts += ["processes"] * self.processes + [f"limits ({', '.join(self.limits)})"] * bool(self.limits)
        return ("confined: " + ", ".join(parts) if parts else "not confined") + "".join(f"; {m}" for m in self.missing)


def has_gpus() -> bool:
    """Return whether the machine has GPUs that a process may use."""
    return any(True for name in _GPUS for _ in Path("/dev").glob(name))


def confining(sandbox: Sandbox) -> Callable[[], Level]:
    """Return `confine(sandbox)` as something that passes to another process."""
    return functools.partial(confine, sandbox)


def confine(sandbox: Sandbox) -> Level:
    """Confine this process for good, as far as the kernel allows, and return how far that is.

    To be called before any other thread exists: threads that do already keep their access to files. Folders to write
    are made if they are not there.
    """
    _forget_environment()
    for folder in sandbox.write:
        folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(sandbox.write[0])  # ctypes asks for one while torch is imported
    limits = _limited(sandbox.memory)
    missing = []
    # The filter comes first: it sets what Landlock asks for without privileges, that no program may gain any.
    filtered, why = _put_on("system calls", seccomp.forbid)
    missing += why
    abi: list[int] = []
    closed, why = _put_on("files", lambda: abi.append(landlock.restrict(_access(sandbox))))
    missing += why
    network = "all" if filtered else "tcp" if closed and abi[0] >= 4 else ""
    return Level(closed, network, filtered, limits, tuple(missing))


def _forget_environment() -> None:
    """Drop the variables that Python and its libraries do not read: keys and passwords come that way."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    os.environ.clear()
    os.environ.update(kept)
    if sys.platform == "linux":
        # What the process was started with stays where it was, for whoever reads /proc/self/environ.
        begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47:49])
        ctypes.memset(begin, 0, end - begin)


def _put_on(what: str, part: Callable[[], None]) -> tuple[bool, list[str]]:
    if sys.platform != "linux":
        return False, [f"{what} are open: this is not Linux"]
    try:
        part()
    except OSError as error:
        return False, [f"{what} are open: {error.strerror}"]
    return True, []


def _limited(memory: int | None) -> tuple[str, ...]:
    """Set soft and hard limits, never above those that hold, and return their names.

    Memory is that of RLIMIT_DATA, what is private and can be written: torch reserves more addresses than it uses.
    """
    wanted = {"core": 0, "fsize": _FILE_SIZE, "nproc": _TASKS, "data": memory}
    done = []
    for name, limit in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if kind is None or limit is None:
            continue
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (OSError, ValueError):
            continue
        done.append(name)
    return tuple(done)


def _access(sandbox: Sandbox) -> landlock.Access:
    read = [*map(Path, _SYSTEM), *_python(), *sandbox.read]
    gpus = [path for name in _GPUS for path in Path("/dev").glob(name)] if sandbox.devices else []
    return landlock.Access(tuple(read), (*map(Path, _SHARED), *sandbox.write), tuple(gpus))


def _python() -> Iterable[Path]:
    """Yield where Python, its packages and our own lie, but not a folder that is only the current one, or a home."""
    yield from (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).absolute().parents[3].resolve())
    elsewhere = {Path.cwd().resolve(), Path.home().resolve(), Path("/")}
    given = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    for entry in sys.path:
        path = Path(entry).resolve()
        if entry and (path in given or path not in elsewhere):
            yield path
