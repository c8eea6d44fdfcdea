"""The real stack on this machine: servers, functions and data plane under one supervisor; `layerscope up` and `down`.

Nothing here gives up on what is slow, and nothing that has started is taken down because something else has not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Final

from layerscope.functions.__main__ import names
from layerscope.schemas.errors import LayerscopeError
from layerscope.stack import programs
from layerscope.stack.environment import Stack
from layerscope.stack.members import stack_dataplane, stack_functions, stack_servers
from layerscope.stack.provision import provide
from layerscope.stack.supervisor import SAY_SECONDS, AlreadyRunning, Status, Supervisor, read_status
from layerscope.systems import on_free_ports

Say = Callable[[str], None]
FAILURES: Final = 5
"""So many runs of a process in a row that end before it was ready are no passing circumstance."""
PROVIDED: Final = frozenset({"minio", "kafka", "milvus"})
"""Servers in which something is made before they are used, and again when they come back without it."""


class StackError(LayerscopeError):
    """The stack did not start or stop; the message says why."""


def run(stack: Stack, say: Say) -> None:
    """Run the stack until SIGTERM or Ctrl-C.

    Raises:
        AlreadyRunning: it runs in another process.
        ServerError: a server cannot be installed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    ready, returned = stack.directory / "ready", SimpleQueue[str]()
    with Supervisor(stack.directory, returned.put) as supervisor:
        ready.unlink(missing_ok=True)
        try:
            programs.install(say, secure=stack.secured)
            with on_free_ports(stack, say) as placed:
                _start(placed, supervisor, say)
                ready.write_text(str(os.getpid()))
                say(f"ready: {placed.url}")
                while True:
                    _mend(placed, returned.get(), say)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            ready.unlink(missing_ok=True)


def start(stack: Stack, say: Say) -> None:
    """Run the stack in the background, and return once it is ready.

    Raises:
        AlreadyRunning: it runs already.
        StackError: it ended, or one of its processes ends again and again; the message says with which words.
    """
    if is_running(stack.directory):
        raise AlreadyRunning(f"the stack of {stack.directory} is running")
    ready, log = stack.directory / "ready", stack.directory / "up.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "layerscope.cli", "up", "--data", str(stack.directory)]
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    shown = 0
    while True:
        done = ready.exists()
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            say(line)
        shown = len(lines)
        if done:
            return
        if child.poll() is not None:
            raise StackError("\n".join(["the stack did not start", *lines[-20:]]))
        if (failing := failure(stack.directory)) is not None:
            raise StackError(failing)
        time.sleep(0.1)


def stop(directory: Path, say: Say) -> bool:
    """Stop the stack of a directory and return once it is gone; False: it was not running."""
    status = read_status(directory)
    if status is None:
        return False
    say(f"stopping the stack of {directory}")
    os.kill(status.supervisor, signal.SIGTERM)
    began = said = time.monotonic()
    while (status := read_status(directory)) is not None:
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            left = ", ".join(one.name for one in status.processes if one.pid) or "the supervisor"
            say(f"waiting, {said - began:.0f} s so far, for the end of {left}")
        time.sleep(0.1)
    return True


def is_running(directory: Path) -> bool:
    """Tell whether a supervisor holds this directory."""
    return read_status(directory) is not None


def failure(directory: Path) -> str | None:
    """Return what is said of a process that ends again and again before it is ready; None: there is no such process."""
    status = read_status(directory) or Status(0, ())
    for one in status.processes:
        if one.failures >= FAILURES and one.last_end is not None:
            return (
                f"{one.name} has ended {one.failures} times in a row before it was ready. The last time: "
                f"{one.last_end.text}\n"
                "What has started stays, and it is started again and again: `layerscope status` shows how it stands, "
                "`layerscope down` stops all."
            )
    return None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End whatever the main thread waits for; further signals find it stopping."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _start(stack: Stack, supervisor: Supervisor, say: Say) -> None:
    say("starting MinIO, Kafka, Redis and Milvus Lite")
    supervisor.start(*stack_servers(stack), say=say)
    provide(stack, say)
    say(f"starting {len(names())} functions")
    functions, urls = stack_functions(stack)
    supervisor.start(*functions, say=say)
    supervisor.start(stack_dataplane(stack, urls), say=say)


def _mend(stack: Stack, server: str, say: Say) -> None:
    """Make in a server that came back what it may have lost."""
    if server in PROVIDED:
        provide(stack, say)
        say(f"{server} is back")
