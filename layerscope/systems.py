"""Which system a command is about: a local stack, a directory, or one elsewhere; and how its parts are reached.

A system on this machine is a directory with a `system.json`; the credentials of a stack lie next to it in a private file.
The one that `up` or `demo` made last is remembered for the user.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.keys import BUCKETS
from layerscope.stack import certificates, kafka_node
from layerscope.stack.certificates import Certificates
from layerscope.stack.servers import free_ports

MANIFESTS: Final = Path(__file__).parent / "knative" / "rendered" / "laptop.yaml"
"""What a laptop's cluster is given, and the local data plane reads."""

STACK_DIRECTORY: Final = Path(".layerscope/stack")
DEMO_DIRECTORY: Final = Path(".layerscope/demo")
ROLES: Final = ("", "functions_", "uploader_")
BUCKET_PREFIX: Final = "layerscope-"
"""What the names of buckets begin with in a secured stack, as they have to where names are shared with all the world."""

PORTS: Final = {"query": 8080, "minio": 9000, "kafka": 9092, "controller": 9093, "redis": 6379, "milvus": 19530}


class NoSystem(LayerscopeError):
    """There is no such system; the message says how to make one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the servers of a stack ask for; made once, at random, and kept in a file that only the user can read.

    The first pair of keys is MinIO's own, which may do all; `knative/policies` says what the other two may.
    """

    access_key: str
    secret_key: str = field(repr=False)
    functions_access_key: str
    functions_secret_key: str = field(repr=False)
    uploader_access_key: str
    uploader_secret_key: str = field(repr=False)
    redis_password: str = field(repr=False)
    kafka_password: str = field(repr=False)
    kafka_broker_password: str = field(repr=False)

    @classmethod
    def random(cls) -> Self:
        """Return new ones."""
        names = {f"{role}access_key": f"layerscope-{role.replace('_', '-')}{secrets.token_hex(4)}" for role in ROLES}
        named = [f"{role}secret_key" for role in ROLES]
        named += ["redis_password", "kafka_password", "kafka_broker_password"]
        return cls(**names, **{name: secrets.token_urlsafe(24) for name in named})


@dataclass(frozen=True, slots=True)
class Stack:
    """The real servers and functions on this machine, with their ports.

    `secured`: MinIO, Kafka and Redis are spoken to with TLS, Kafka by a user, and the buckets have other names, as all
    of it may be on a cluster.
    """

    directory: Path
    ports: Mapping[str, int]
    credentials: Credentials
    secured: bool = False

    @property
    def url(self) -> str:
        """Return the URL of `query`."""
        return f"http://127.0.0.1:{self.ports['query']}"

    @property
    def certificates(self) -> Certificates | None:
        """Return the certificates of a secured stack."""
        return certificates.ensure(self.directory / "certificates") if self.secured else None

    def client_environment(self) -> dict[str, str]:
        """Return what any S3 client and `layerscope` itself need to upload and read, as environment variables."""
        return self._environment(self.credentials.uploader_access_key, self.credentials.uploader_secret_key)

    def function_environment(self) -> dict[str, str]:
        """Return what the functions need, as environment variables."""
        given = {
            **self._environment(self.credentials.functions_access_key, self.credentials.functions_secret_key),
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.ports['kafka']}",
            "MILVUS_URI": f"http://127.0.0.1:{self.ports['milvus']}",
            "REDIS_URL": f"redis://:{self.credentials.redis_password}@127.0.0.1:{self.ports['redis']}/0",
        }
        held = self.certificates
        if held is None:
            return given
        return {
            **given,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": kafka_node.MECHANISM,
            "KAFKA_SASL_USERNAME": kafka_node.USER,
            "KAFKA_SASL_PASSWORD": self.credentials.kafka_password,
            "KAFKA_SSL_CAFILE": str(held.authority),
            "REDIS_URL": given["REDIS_URL"].replace("redis://", "rediss://", 1),
            "REDIS_SSL_CAFILE": str(held.authority),
        }

    def administrator_environment(self) -> dict[str, str]:
        """Return what makes buckets, notifications and users: the functions' environment, with MinIO's own keys."""
        own = self._environment(self.credentials.access_key, self.credentials.secret_key)
        return {**self.function_environment(), **own}

    def _environment(self, access_key: str, secret_key: str) -> dict[str, str]:
        held = self.certificates
        endpoint = f"{'http' if held is None else 'https'}://127.0.0.1:{self.ports['minio']}"
        secured = {} if held is None else {"AWS_CA_BUNDLE": str(held.authority), **self._buckets()}
        return {
            "S3_ENDPOINT": endpoint,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAYERSCOPE_URL": self.url,
            **secured,
        }

    @staticmethod
    def _buckets() -> dict[str, str]:
        return {f"S3_BUCKET_{bucket.upper()}": BUCKET_PREFIX + bucket for bucket in BUCKETS}


@dataclass(frozen=True, slots=True)
class Embedded:
    """A system that is one directory, and runs in the process of whoever uses it."""

    directory: Path


@dataclass(frozen=True, slots=True)
class Remote:
    """A system elsewhere, by the URL of its `query`; uploads go to the S3 endpoint that the environment names."""

    url: str


Located = Stack | Embedded | Remote


def make_stack(directory: Path, *, secured: bool = False) -> Stack:
    """Return the stack of a directory, choosing ports and credentials the first time.

    Raises:
        NoSystem: it is `secured`, and the one that is there is not.
    """
    directory = directory.resolve()
    if (directory / "system.json").exists():
        found = _read_stack(directory)
        if secured and not found.secured:
            raise NoSystem(f"the stack of {directory} was made without --secure: give another one with --data")
        return found
    directory.mkdir(parents=True, exist_ok=True)
    usual = {name: port for name, port in PORTS.items() if _is_free(port)}
    others = iter(free_ports(len(PORTS) - len(usual)))
    ports = {name: usual.get(name) or next(others) for name in PORTS}
    credentials = Credentials.random()
    _write(directory / "credentials.json", asdict(credentials), private=True)
    _write(directory / "system.json", {"kind": "stack", "ports": ports, "secured": secured})
    return Stack(directory, ports, credentials, secured)


def make_embedded(directory: Path) -> Embedded:
    """Return the embedded system of a directory, making it the first time."""
    directory = directory.resolve()
    if not (directory / "system.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / "system.json", {"kind": "embedded"})
    return Embedded(directory)


def remember(system: Stack | Embedded) -> None:
    """Make this the system that commands are about when they do not say."""
    _pointer().parent.mkdir(parents=True, exist_ok=True)
    _pointer().write_text(str(system.directory))


def locate(at: str | None) -> Located:
    """Return the system at a URL or a directory; None: LAYERSCOPE_URL, or the one made last.

    Raises:
        NoSystem: there is none.
    """
    at = at or os.environ.get("LAYERSCOPE_URL")
    if at and at.startswith(("http://", "https://")):
        return Remote(at.rstrip("/"))
    if at:
        directory = Path(at).resolve()
    else:
        try:
            directory = Path(_pointer().read_text())
        except FileNotFoundError:
            raise NoSystem("there is no system yet: `layerscope demo` makes one, `layerscope up` another") from None
    match _kind(directory):
        case "stack":
            return _read_stack(directory)
        case "embedded":
            return Embedded(directory)
        case None:
            raise NoSystem(f"there is no system in {directory}: `layerscope init --at {directory}` makes one")


def _kind(directory: Path) -> Literal["stack", "embedded"] | None:
    try:
        kind: Literal["stack", "embedded"] = json.loads((directory / "system.json").read_text())["kind"]
    except FileNotFoundError:
        return None
    return kind


def _read_stack(directory: Path) -> Stack:
    system = json.loads((directory / "system.json").read_text())
    stored = json.loads((directory / "credentials.json").read_text())
    credentials = Credentials(**{**asdict(Credentials.random()), **stored})
    if len(stored) < len(asdict(credentials)):  # it was made before there were roles
        _write(directory / "credentials.json", asdict(credentials), private=True)
    return Stack(directory, system["ports"], credentials, system.get("secured", False))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(path: Path, content: object, *, private: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "w") as file:
        json.dump(content, file, indent=1)


def _pointer() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "layerscope" / "current"
