"""Which system a command is about: a local stack, a directory, or one elsewhere; and how its parts are reached.

A system on this machine is a directory with a `system.json`; the credentials of a stack lie next to it in a private file.
Commands are about the one in the nearest `.layerscope` above the working folder, or the one that `up` or `demo` made
last, which is remembered for the user.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from layerscope import nearest
from layerscope.schemas.errors import LayerscopeError
from layerscope.stack.credentials import Credentials
from layerscope.stack.environment import Stack
from layerscope.stack.ports import PORTS, HeldPorts
from layerscope.stack.ports import choose as ports_of

__all__ = (
    "DATAPLANE_URL",
    "DEMO_DIRECTORY",
    "MANIFESTS",
    "STACK_DIRECTORY",
    "Embedded",
    "Found",
    "Located",
    "NoSystem",
    "Remote",
    "Stack",
    "default_directory",
    "find",
    "find_stack",
    "locate",
    "make_embedded",
    "make_stack",
    "on_free_ports",
    "remember",
)

MANIFESTS: Final = Path(__file__).parent / "knative" / "rendered" / "laptop.yaml"
"""What a laptop's cluster is given, and the local data plane reads."""

DATAPLANE_URL: Final = "dataplane.url"
"""The file of a stack's directory in which the address of its data plane stands."""

STACK_DIRECTORY: Final = Path(".layerscope/stack")
DEMO_DIRECTORY: Final = Path(".layerscope/demo")
LEAVING_SECONDS: Final = 3.0


class NoSystem(LayerscopeError):
    """There is no such system; the message says how to make one."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A system that is one directory, and runs in the process of whoever uses it."""

    directory: Path


@dataclass(frozen=True, slots=True)
class Remote:
    """A system elsewhere, by the URL of its `query`; uploads go to the S3 endpoint that the environment names."""

    url: str


Located = Stack | Embedded | Remote


@dataclass(frozen=True, slots=True)
class Found:
    """The system that a command is about, and how it was found."""

    system: Located
    how: str

    @property
    def sentence(self) -> str:
        """Return one line that says which it is."""
        match self.system:
            case Stack(directory) | Embedded(directory):
                return f"system: {directory} ({self.how})"
            case Remote(url):
                return f"system: {url} ({self.how})"


def make_stack(directory: Path, *, secured: bool = False) -> Stack:
    """Return the stack of a directory, choosing ports and credentials the first time.

    Raises:
        NoSystem: it is `secured` and the one that is there is not, there is a system of another kind, or the folder
            cannot be written.
    """
    directory = directory.resolve()
    match _kind(directory):
        case "stack":
            found = _read_stack(directory)
            if secured and not found.secured:
                raise NoSystem(f"the stack of {directory} was made without --secure: give another one with --data")
            return found
        case "embedded":
            raise NoSystem(f"{directory} holds a system without servers: give the stack another folder with --data")
    ports = ports_of({}, PORTS)
    credentials = Credentials.random()
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / "credentials.json", asdict(credentials), private=True)
        _write(directory / "system.json", {"kind": "stack", "ports": ports, "secured": secured})
    return Stack(directory, ports, credentials, secured)


@contextmanager
def on_free_ports(stack: Stack, say: Callable[[str], None]) -> Iterator[Stack]:
    """Have the stack, which does not run yet, hold its ports; others where somebody else has taken its own meanwhile."""
    with HeldPorts() as held:
        kept: dict[str, int] = {}
        deadline = time.monotonic() + LEAVING_SECONDS  # what a killed stack has left behind is about to end
        while True:
            kept |= {name: port for name, port in stack.ports.items() if name not in kept and held.take(port)}
            if len(kept) == len(stack.ports) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        ports = dict(kept)
        while len(ports) < len(stack.ports):
            ports |= {n: port for n, port in ports_of(ports, {}).items() if n not in ports and held.take(port)}
        for name, port in stack.ports.items():
            if port != ports[name]:
                say(f"port {port} is taken by another program: {name} is at {ports[name]} from now on")
        if len(kept) < len(ports):
            with _writing(stack.directory):
                _write(stack.directory / "system.json", {"kind": "stack", "ports": ports, "secured": stack.secured})
        yield replace(stack, ports={name: ports[name] for name in stack.ports})


def make_embedded(directory: Path) -> Embedded:
    """Return the embedded system of a directory, making it the first time.

    Raises:
        NoSystem: a stack is there, or the folder cannot be written.
    """
    directory = directory.resolve()
    kind = _kind(directory)
    if kind == "stack":
        raise NoSystem(f"{directory} holds a stack, which `layerscope up` prepares by itself: give another folder")
    if kind is None:
        with _writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            _write(directory / "system.json", {"kind": "embedded"})
    return Embedded(directory)


def remember(system: Stack | Embedded, say: Callable[[str], None]) -> None:
    """Make this the system that commands are about when they do not say, and none is nearer; `say` so if that fails."""
    with suppress(OSError):
        os.utime(system.directory / "system.json")  # of those in one folder, the one made last is meant
    where = "the state folder"
    try:
        pointer = nearest.pointer()
        where = str(pointer.parent)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(str(system.directory), encoding="utf-8")
    except OSError as error:
        say(
            f"{where} cannot be written ({error.strerror}): commands in other folders need --at "
            f"{system.directory}, or XDG_STATE_HOME has to name a folder that can be"
        )


def default_directory(kind: Path) -> Path:
    """Return where `up` or `demo` has its system: in the nearest `.layerscope` above, or in a new one here.

    Args:
        kind: STACK_DIRECTORY or DEMO_DIRECTORY.
    """
    folder = nearest.nearest_folder()
    return kind if folder is None else folder / kind.name


def find(at: str | None) -> Found:
    """Return the system at a URL or a directory, and how it was found.

    Without `at` it is the one that LAYERSCOPE_URL names, the one in the nearest `.layerscope` above the working folder,
    or the one that `up` or `demo` made last.

    Raises:
        NoSystem: there is none.
    """
    if at:
        return Found(_located(at), "--at")
    if url := os.environ.get("LAYERSCOPE_URL"):
        return Found(_located(url), "LAYERSCOPE_URL")
    folder = nearest.nearest_folder()
    if folder is not None and (inside := nearest.systems_in(folder)):
        return Found(_located(str(inside[0])), "the nearest .layerscope above this folder")
    try:
        directory = nearest.pointer().read_text(encoding="utf-8")
    except OSError:
        raise NoSystem("there is no system yet: `layerscope demo` makes one, `layerscope up` another") from None
    return Found(_located(directory), "the one made last")


def find_stack(data: Path | None) -> Found | None:
    """Return the stack of a folder; without one the nearest, or the one made last; None: there is none of these.

    Raises:
        NoSystem: there is no stack in that folder.
    """
    if data is not None:
        stack = _located(str(data))
        if not isinstance(stack, Stack):
            raise NoSystem(f"{data.resolve()} holds a system without servers")
        return Found(stack, "--data")
    folder = nearest.nearest_folder()
    for one in nearest.systems_in(folder) if folder else ():
        if isinstance(stack := _located(str(one)), Stack):
            return Found(stack, "the nearest .layerscope above this folder")
    with suppress(OSError, NoSystem):
        if isinstance(stack := _located(nearest.pointer().read_text(encoding="utf-8")), Stack):
            return Found(stack, "the one made last")
    return None


def locate(at: str | None) -> Located:
    """Return the system that `find` finds.

    Raises:
        NoSystem: there is none.
    """
    return find(at).system


def _located(at: str) -> Located:
    if at.startswith(("http://", "https://")):
        return Remote(at.rstrip("/"))
    directory = Path(at).resolve()
    match _kind(directory):
        case "stack":
            return _read_stack(directory)
        case "embedded":
            return Embedded(directory)
        case None:
            raise NoSystem(f"there is no system in {directory}: `layerscope init --at {directory}` makes one")


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Raises NoSystem with a sentence where the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise NoSystem(f"{directory} cannot be written ({error.strerror}): give another folder with --data") from error


def _kind(directory: Path) -> Literal["stack", "embedded"] | None:
    try:
        kind: Literal["stack", "embedded"] = json.loads((directory / "system.json").read_text())["kind"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NoSystem(f"{directory / 'system.json'} cannot be read: {type(error).__name__}") from error
    return kind


def _read_stack(directory: Path) -> Stack:
    """Read what is known of a stack.

    Raises:
        NoSystem: its files cannot be read.
    """
    file = directory / "system.json"
    try:
        system = json.loads(file.read_text())
        ports, secured = {str(name): int(port) for name, port in system["ports"].items()}, bool(system.get("secured"))
        file = directory / "credentials.json"
        stored = json.loads(file.read_text())
        credentials = Credentials(**{**asdict(Credentials.random()), **stored})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is damaged, {type(error).__name__}"
        raise NoSystem(f"{file} cannot be read: {reason}; what it said is needed to open the stack's data") from error
    if len(stored) < len(asdict(credentials)):  # it was made before there were roles
        _write(directory / "credentials.json", asdict(credentials), private=True)
    return Stack(directory, ports, credentials, secured)


def _write(path: Path, content: object, *, private: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "w") as file:
        json.dump(content, file, indent=1)
