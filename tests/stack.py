"""A real stack for tests: started once for a module, spoken to by boto3, stopped by id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from layerscope.functions.runtime.services import object_store
from layerscope.functions.runtime.settings import ObjectStoreSettings
from layerscope.stack.hosts import hosts
from layerscope.stack.supervisor import read_status
from layerscope.stores.s3_store import S3Store
from layerscope.systems import Stack, make_stack

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class RealStack:
    """A running stack and its clients."""

    stack: Stack
    s3: Any
    query: httpx.Client

    @property
    def store(self) -> S3Store:
        return object_store(ObjectStoreSettings.read(self.stack.client_environment()))

    def pid(self, name: str) -> int | None:
        status = read_status(self.stack.directory)
        assert status is not None
        return next(one.pid for one in status.processes if one.name == name)

    def processes(self) -> list[str]:
        status = read_status(self.stack.directory)
        assert status is not None
        return [one.name for one in status.processes]

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return what a process wrote, or the one that has this function."""
        name = next((one.name for one in hosts() if name in one.functions), name)
        lines = (self.stack.directory / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def computations(self, function: str, subject: str) -> int:
        said = f"a computation of {function} for {subject} ended"
        return sum(line["message"].startswith(said) for line in self.log(function))

    def model(self, subject: str) -> dict[str, Any] | None:
        answer = self.query.get(f"/models/{subject}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().json()

    def state(self, subject: str) -> str | None:
        found = self.model(subject)
        return None if found is None else str(found["state"])


def s3_client(environment: Mapping[str, str]) -> Any:
    """Return a foreign S3 client with what `layerscope env` prints, or with other keys."""
    return boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
        verify=environment.get("AWS_CA_BUNDLE"),
        config=Config(retries={"max_attempts": 3}, connect_timeout=5, read_timeout=30),
    )


@contextmanager
def running(directory: Path, *options: str) -> Iterator[RealStack]:
    """Start a stack in the background, and stop it."""
    started = layerscope("up", "--detach", "--data", str(directory), *options)
    assert started.returncode == 0, started.stderr
    made = make_stack(directory)
    try:
        s3 = s3_client(made.client_environment())
        with httpx.Client(base_url=made.url, timeout=30) as query:
            yield RealStack(made, s3, query)
    finally:
        stopped = layerscope("down", "--data", str(directory))
        assert stopped.returncode == 0, stopped.stderr


def eventually(
    holds: Callable[[], Any], seconds: float = 300, every: float = 0.2, last: Callable[[], object] = lambda: ""
) -> Any:
    """Return the first true answer of `holds`; fail when none comes, even of a busy machine. Connection errors count as no.

    `last` says what there was instead.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = holds()
        except (httpx.TransportError, httpx.HTTPStatusError):
            answer = None
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s {last()}"
        time.sleep(every)


def layerscope(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "layerscope.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )
