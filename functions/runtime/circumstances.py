"""Which errors come of what the node was short of, and not of the work: they are tried again, and never recorded.

An error is judged with those behind it: a reader that says "this file is damaged" because the disk was full is wrong.
"""

from __future__ import annotations

import errno
import re
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
    errno.EAGAIN: "processes",
}
_FAILING: Final = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})
"""Of a disk that is broken, was mounted to be read only since it broke, or has gone."""
# What libraries say that raise errors of their own, as a RuntimeError or an ImportError, for what the system refused.
_SAID: Final[Mapping[str, str]] = {
    "No space left on device": "space on its disk",
    "Disk quota exceeded": "space on its disk",
    "Too many open files": "open files",
    "can't start new thread": "threads",
    "Resource temporarily unavailable": "processes",
}
_WRITTEN: Final = re.compile(r"\d+ requested and \d+ written")  # NumPy's, of a disk that is full
_MEMORY: Final = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc", "out of memory", "ALLOC_FAILED")
_SAYING: Final = (RuntimeError, ImportError, OSError)
_NO_LIMIT: Final = float("inf")


def shortage(error: BaseException) -> ShortOfResources | None:
    """Return what an error means where the node was short of something; None where it came of the work."""
    for one in _behind(error):
        if isinstance(one, ShortOfResources):
            return one
        if isinstance(one, OSError) and (what := _WHAT.get(one.errno or 0)):
            return ShortOfResources(f"the node has no more {what} to give: {one.strerror}")
        if isinstance(one, OSError) and one.errno in _FAILING:
            return ShortOfResources(f"a disk of the node fails: {one.strerror}")
        if (said := _said(one)) is not None:
            return ShortOfResources(f"the node has no more {said} to give: {type(one).__name__}")
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


def _said(error: BaseException) -> str | None:
    if not isinstance(error, _SAYING):
        return None
    text = str(error)
    if isinstance(error, OSError) and _WRITTEN.match(text):
        return "space on its disk"
    return next((what for words, what in _SAID.items() if words in text), None)


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, _SAYING) and any(words in str(error) for words in _MEMORY)


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
