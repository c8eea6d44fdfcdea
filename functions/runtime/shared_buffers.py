"""Calls and answers between a function and its worker: through a pipe, but for large buffers, which both have in memory.

A pipe holds 64 KiB, so megabytes take dozens of turns of two processes. A memory that both map costs a copy on either
side. Pickle (protocol 5, PEP 574) takes out of what is sent the buffers of arrays and of `Uncopied`; where they do not
fit, or the system has no such memory, they go through the pipe like the rest.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any, Final, SupportsIndex

from layerscope.functions.runtime.answers import ITSELF, NotPlain, read_answer, write_answer

LEAST: Final = 32 * 1024
"""Bytes from which a buffer is not sent through the pipe."""
MOST: Final = 256 * 2**20
"""Bytes of all buffers of one message; what is not used takes no memory."""
KEPT: Final = 16 * 2**20
"""Bytes that the system may leave in memory between two messages."""
_ALIGNED: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Uncopied:
    """Bytes to be sent that are not copied before; on the other side they are a bytearray, or bytes.

    A `pickle.PickleBuffer` would do, but for a fault of Python 3.11: one over a memoryview that is found in a cycle of
    garbage, as each traceback is one, ends the process. Here it lives only while it is pickled.
    """

    content: memoryview | bytearray | bytes

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Callable[..., Any], tuple[pickle.PickleBuffer]]:
        """Be what is inside, for who receives it."""
        return ITSELF, (pickle.PickleBuffer(self.content),)


def arrived(content: Uncopied | bytearray | bytes) -> bytearray | bytes:
    """Return bytes that have come from the other side."""
    assert not isinstance(content, Uncopied)
    return content


class SharedBuffers:
    """Memory for the buffers of one message at a time: an answer is sent only after its call was received."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Map the memory of a descriptor.

        Raises:
            OSError: the system has no room for it.
        """
        self._descriptor = descriptor
        self._size = size
        self._memory = mmap.mmap(descriptor, size)

    @classmethod
    def made(cls, size: int = MOST) -> SharedBuffers:
        """Return new memory, for a child that is about to start.

        Raises:
            OSError: the system has no room for it.
        """
        descriptor = os.memfd_create("layerscope", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            return cls(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise

    def __reduce__(self) -> tuple[Callable[[int, Any], SharedBuffers], tuple[int, Any]]:
        """Go to a child with what it is started with."""
        return _mapped, (self._size, DupFd(self._descriptor))

    def close_descriptor(self) -> None:
        """Close what nobody needs any more once the child has started; the memory stays as long as this object."""
        os.close(self._descriptor)

    def write(self, content: memoryview, place: int) -> int:
        """Write a buffer, and return the first place behind it."""
        self._memory[place : place + len(content)] = content
        return -(-(place + len(content)) // _ALIGNED) * _ALIGNED

    def read(self, place: int, length: int) -> bytearray:
        """Return a copy of a buffer."""
        return bytearray(memoryview(self._memory)[place : place + length])

    def has_room(self, place: int, length: int) -> bool:
        """Tell whether a buffer can be written at a place."""
        return place + length <= self._size

    def empty(self, used: int) -> None:
        """Give memory back to the system, where a message has used much."""
        if used > KEPT:
            with suppress(OSError):  # a sandbox may not know it
                self._memory.madvise(mmap.MADV_REMOVE)


def _mapped(size: int, handed_over: Any) -> SharedBuffers:
    made = SharedBuffers(handed_over.detach(), size)
    made.close_descriptor()
    return made


@contextmanager
def handed_over() -> Iterator[SharedBuffers | None]:
    """Give memory to a child that is started within; None, on a system without."""
    try:
        shared = SharedBuffers.made()
    except (OSError, AttributeError):  # AttributeError: no Linux
        yield None
        return
    try:
        yield shared
    finally:
        shared.close_descriptor()


class Channel:
    """One side of the way between a function and its worker."""

    def __init__(self, pipe: Connection, shared: SharedBuffers | None, side: Side) -> None:
        self._pipe = pipe
        self._shared = shared
        self._side = side

    def poll(self, seconds: float) -> bool:
        """Wait so long for something to be received; tell whether there is."""
        return self._pipe.poll(seconds)

    def send(self, value: Any) -> None:
        """Send something that can be pickled."""
        places: list[tuple[int, int]] = []
        end = 0

        def kept_back(buffer: pickle.PickleBuffer) -> bool:
            """Return whether the pipe has to take it."""
            nonlocal end
            content = buffer.raw()
            if self._shared is None or len(content) < LEAST or not self._shared.has_room(end, len(content)):
                return True
            places.append((end, len(content)))
            end = self._shared.write(content, end)
            return False

        content = self._side.write(value, kept_back)
        self._pipe.send_bytes(json.dumps([end, *places]).encode())
        self._pipe.send_bytes(content)

    def receive(self) -> Any:
        """Return what was sent; an array that could not be written to cannot be here, either.

        Raises:
            EOFError, OSError: the other side is gone.
            NotPlain: a worker has answered with what is no data.
        """
        said, content = self._pipe.recv_bytes(), self._pipe.recv_bytes()
        end, places = _places(said, self._shared)
        buffers = [self._shared.read(*one) for one in places] if self._shared is not None else []
        value = self._side.read(content, buffers)
        if self._shared is not None:
            self._shared.empty(end)
        return value


@dataclass(frozen=True, slots=True)
class Side:
    """How one side writes what it sends, and reads what it is sent."""

    write: Callable[[Any, Callable[[pickle.PickleBuffer], bool]], bytes]
    read: Callable[[bytes, Iterable[bytearray]], Any]


def _places(said: bytes, shared: SharedBuffers | None) -> tuple[int, list[tuple[int, int]]]:
    """Return where the buffers of a message end, and where each lies: one behind the other.

    Raises:
        NotPlain: they cannot lie there.
    """
    try:
        end, *places = json.loads(said)
        reached = 0
        for place, length in places:
            if not (type(place) is type(length) is int and place >= reached and length >= LEAST):
                raise ValueError("they overlap")
            reached = place + length
        if type(end) is not int or end < 0 or (reached and (shared is None or not shared.has_room(0, reached))):
            raise ValueError("they end where there is no memory")
    except (ValueError, TypeError, RecursionError) as error:
        raise NotPlain(f"the computing process says of its buffers what cannot be: {error}") from error
    return end, [(place, length) for place, length in places]


def _write_call(value: Any, buffers: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    return pickle.dumps(value, protocol=5, buffer_callback=buffers)


def _read_call(content: bytes, buffers: Iterable[bytearray]) -> Any:
    return pickle.loads(content, buffers=buffers)  # noqa: S301  by the process that started this one


FUNCTION: Final = Side(_write_call, read_answer)
"""A function sends whatever it likes, and reads data."""
WORKER: Final = Side(write_answer, _read_call)
"""And a worker the other way round."""
