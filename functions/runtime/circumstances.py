"""Which errors come of what the node was short of, and not of the work: they are tried again, and never recorded.

An error is judged with those behind it: a reader that says "this file is damaged" because the disk was full is wrong.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from layerscope.schemas.errors import ShortOfMemory, ShortOfResources

_WHAT: Final[Mapping[int, str]] = {
    errno.ENOSPC: "space on its disk",
    errno.EDQUOT: "space on its disk",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
}
_ALLOCATOR: Final = "can't allocate memory"  # torch's, for what Python calls a MemoryError
_THREADS: Final = "can't start new thread"
_NO_LIMIT: Final = float("inf")


def shortage(error: BaseException) -> ShortOfResources | None:
    """Return what an error means where the node was short of something; None where it came of the work."""
    for one in _behind(error):
        if isinstance(one, ShortOfResources):
            return one
        if isinstance(one, OSError) and (what := _WHAT.get(one.errno or 0)):
            return ShortOfResources(f"the node has no more {what} to give: {one.strerror}")
        if isinstance(one, RuntimeError) and _THREADS in str(one):
            return ShortOfResources("the node lets no more threads start")
        if _is_of_memory(one) and not _own_limit_is_nearest():
            return ShortOfMemory("the node has no more memory to give")
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return True
    return (isinstance(error, OSError) and error.errno == errno.ENOMEM) or (
        isinstance(error, RuntimeError) and _ALLOCATOR in str(error)
    )


def _own_limit_is_nearest() -> bool:
    """Tell whether this process, when it gets no more memory, is nearer to the limit it set itself than to the node's.

    The limit of its own is RLIMIT_DATA (`models.sandbox`); an address space limited from outside is one of the node.
    """
    own = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if own == resource.RLIM_INFINITY:
        return False
    status = _sizes("/proc/self/status")
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    outside = _NO_LIMIT if addresses == resource.RLIM_INFINITY else addresses - status.get("VmSize", 0)
    available = _sizes("/proc/meminfo").get("MemAvailable", _NO_LIMIT)
    return own - status.get("VmData", 0) <= min(outside, available, _cgroup_left())


def _sizes(path: str) -> dict[str, float]:
    """Return the sizes of a file of /proc, in bytes; none on a system without one."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    return {parts[0].rstrip(":"): float(parts[1]) * 1024 for parts in lines if len(parts) == 3 and parts[2] == "kB"}


def _cgroup_left() -> float:
    try:
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return _NO_LIMIT
    return float(most) - float(used) if most.isdigit() else _NO_LIMIT
