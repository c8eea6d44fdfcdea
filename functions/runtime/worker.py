"""Where things are computed: one child process, spawned and kept warm, with a time and a memory limit for each call.

    the child                                              the caller gets
    raised an error, crashed, passed a limit               WorkFailed
    was killed from outside                                WorkerDied, a WorkFailed that may not be the work's
    was given no processor, disk, files or memory          Unavailable: WorkStalled, ShortOfResources
    could not start                                        Unavailable: WorkerNotStarted

A crash there is a failed attempt, never a dead function. Limits count the time in which the child has a processor. The
child is spawned, not forked, so that it may use CUDA; it does not import the program that started it, which may be a
user's script that trains a model and uploads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from prometheus_client import Gauge

from layerscope.functions.runtime.answers import NotPlain
from layerscope.functions.runtime.circumstances import shortage
from layerscope.functions.runtime.processor_time import ProcessorTime
from layerscope.functions.runtime.shared_buffers import FUNCTION, WORKER, Channel, SharedBuffers, handed_over
from layerscope.models.sandbox.confinement import Level
from layerscope.schemas.errors import LayerscopeError, WorkerDied, WorkerNotStarted, WorkFailed, WorkStalled

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_confined = Gauge("layerscope_worker_confined", "What the computing process has given up", ["part"])
_POLL_SECONDS = 0.02
_START_SECONDS = 60.0  # in which a child that starts must get on; it may take as long as it does
PATIENCE = 20
"""How many times its limit a call may take by the clock."""
_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGBUS", "SIGXCPU", "SIGPWR"})
_PAGE = os.sysconf("SC_PAGE_SIZE")
_starting = threading.Lock()


class Worker:
    """Runs functions in a child process, one at a time; the functions and what passes must be picklable.

    `confine` is what the child calls before anything else (`sandbox.confining`); `level` is what it then said.
    """

    def __init__(self, seconds: float, memory_mb: int, confine: Callable[[], Level] | None = None) -> None:
        self.level: Level | None = None
        self.confined = confine is not None
        self._confine = confine
        self._seconds = seconds
        self._memory = memory_mb * 1024 * 1024
        self._turn = asyncio.Lock()
        self._child: multiprocessing.process.BaseProcess | None = None
        self._channel: Channel | None = None

    @property
    def child(self) -> int | None:
        """Return the process id of the child; None while there is none: the next call starts one."""
        child = self._child
        return child.pid if child is not None and child.is_alive() else None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in the child and return what it returns.

        Raises:
            LayerscopeError: the function raised it.
            WorkFailed: the function raised anything else, the child died, or a limit was passed.
            Unavailable: the circumstances did not let it come to an end.
        """
        return await self.attempt(contextlib.nullcontext(), function, *args, **kwargs)

    async def attempt(
        self, attempt: AbstractContextManager[None], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do the same within a context that is entered when the turn has come."""
        async with self._turn:
            with attempt:
                return await self._run(function, args, kwargs)

    async def _run(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        call: asyncio.Future[Any] = asyncio.ensure_future(asyncio.to_thread(self._call, function, args, kwargs))
        try:
            answer: T = await asyncio.shield(call)
            return answer
        except asyncio.CancelledError:
            self.stop()  # ends the call in the thread, so that the turn is free when it is given on
            with contextlib.suppress(LayerscopeError):
                await call
            raise

    def stop(self) -> None:
        """End the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None and child.pid is not None:
            child.kill()
            child.join(timeout=5)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        child, channel = self._started()
        try:
            channel.send((function, args, kwargs))
            self._wait(child, channel)
            kind, answer = _answer(channel.receive())
        except NotPlain as error:
            self.stop()
            raise WorkFailed(str(error)) from error
        except (EOFError, OSError) as error:
            ending = self._ended(child)
            died = WorkerDied if ending.removeprefix("signal ") in _FROM_OUTSIDE else WorkFailed
            raise died(f"the computing process ended with {ending}") from error
        if kind == "returned":
            return answer
        if isinstance(answer, LayerscopeError):
            raise answer
        _log.error("a computation failed:\n%s", answer)
        raise WorkFailed(f"the computation raised {kind}")

    def _started(self) -> tuple[multiprocessing.process.BaseProcess, Channel]:
        """Return the child once it takes a call."""
        try:
            child, channel = self._spawned()
        except OSError as error:
            raise WorkerNotStarted(f"the computing process could not start: {error.strerror}") from error
        try:
            spent = ProcessorTime(child.pid or 0)
            while not channel.poll(_POLL_SECONDS):
                spent.look()
                if spent.still > _START_SECONDS:
                    self.stop()
                    raise WorkerNotStarted(f"the computing process got no processor for {_START_SECONDS:g} s")
            self._tell(_level(channel.receive()))
        except NotPlain as error:
            self.stop()
            raise WorkerNotStarted(str(error)) from error
        except (EOFError, OSError) as error:
            raise WorkerNotStarted(f"the computing process ended with {self._ended(child)} as it started") from error
        return child, channel

    def _ended(self, child: multiprocessing.process.BaseProcess) -> str:
        child.join(timeout=5)
        self.stop()
        return _ending(child.exitcode)

    def _tell(self, level: Level | None) -> None:
        if level != self.level:
            self.level = level
            for part, closed in (level.parts if level else {}).items():
                _confined.labels(part).set(closed)
            _log.log(logging.WARNING if level and level.missing else logging.INFO, "the computing process is %s", level)

    def _spawned(self) -> tuple[multiprocessing.process.BaseProcess, Channel]:
        child, channel = self._child, self._channel
        if child is None or channel is None or not child.is_alive():
            spawn = multiprocessing.get_context("spawn")
            pipe, theirs = spawn.Pipe()
            with handed_over() as shared:
                channel = Channel(pipe, shared, FUNCTION)
                child = spawn.Process(target=_serve, args=(theirs, shared, os.getpid(), self._confine), daemon=True)
                self._child, self._channel = child, channel
                with _program_left_out():
                    child.start()
            theirs.close()
            if self._child is not child:  # stopped while it started, when there was nothing to end yet
                child.kill()
        return child, channel

    def _wait(self, child: multiprocessing.process.BaseProcess, channel: Channel) -> None:
        spent, seconds = ProcessorTime(child.pid or 0), self._seconds
        while not channel.poll(_POLL_SECONDS):
            spent.look()
            over: LayerscopeError | None = None
            if spent.computed > seconds:
                over = WorkFailed(f"the computation took longer than its limit of {seconds:g} s of processor time")
            elif spent.still > seconds or spent.passed > PATIENCE * seconds:
                computed = f"{spent.computed:.1f} of the {seconds:g} s that it may take"
                over = WorkStalled(f"the computation had a processor for {computed}, in {spent.passed:.0f} s")
            elif (used := _resident_bytes(child.pid)) > self._memory:
                over = WorkFailed(f"the computation used {used >> 20} MB, its limit is {self._memory >> 20} MB")
            if over:
                self.stop()
                raise over


@contextlib.contextmanager
def _program_left_out() -> Iterator[None]:
    """Keep a child that starts from importing the program that runs here, as multiprocessing would have it do.

    Without a guard such a script would run once more in the child; with one, the child would import for nothing.
    """
    with _starting:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


def _answer(received: object) -> tuple[str, Any]:
    match received:
        case (str() as kind, answer):
            return kind, answer
    raise NotPlain("the computing process answered with what is no answer")


def _level(received: object) -> Level | None:
    if received is None or isinstance(received, Level):
        return received
    raise NotPlain("the computing process does not say how it is confined")


def _resident_bytes(pid: int | None) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0  # gone, which the pipe tells as well; or a system without /proc, where only the time limit holds


def _ending(exitcode: int | None) -> str:
    if exitcode is None:
        return "its pipe closed"
    return f"status {exitcode}" if exitcode >= 0 else f"signal {signal.Signals(-exitcode).name}"


def _serve(pipe: Connection, shared: SharedBuffers | None, parent: int, confine: Callable[[], Level] | None) -> None:
    _end_with(parent)
    channel = Channel(pipe, shared, WORKER)
    level = confine() if confine else None
    # The function answers these two; it lets a call end before it goes.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # the function is gone
        while True:
            channel.send(level)  # ready: the time of a call does not count what its process took to start
            function, args, kwargs = channel.receive()
            channel.send(_outcome(function, args, kwargs))


def _outcome(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "returned", function(*args, **kwargs)
    except LayerscopeError as error:
        return "raised", shortage(error) or error
    except Exception as error:  # noqa: BLE001  the far side of the one error boundary: the parent judges what this raised
        short = shortage(error)
        return ("raised", short) if short else (type(error).__name__, traceback.format_exc())


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no computation outlives its function
    if os.getppid() != parent:
        os._exit(0)
