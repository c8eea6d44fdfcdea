"""Functions as Knative runs them: reached at the pod's address, probed there, and with connections that stay open."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from layerscope.stack.ports import free_ports
from tests.stack import ROOT, eventually

pytestmark = pytest.mark.slow

ELSEWHERE = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
POD = "127.0.0.2"  # an address of this machine that a server on 127.0.0.1 does not answer at
LONGER_THAN_SERVERS_KEEP_THEM = 6  # seconds; uvicorn and hypercorn close idle connections after 5 unless they are told


@contextmanager
def pod(folder: Path, *names: str, **environment: str) -> Iterator[int]:
    """Run functions as a container of Knative's does; yields the user port."""
    (port,) = free_ports(1)
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        **ELSEWHERE,
        "K_SERVICE": "service",
        "PORT": str(port),
        **environment,
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "layerscope.functions", *names], env=given, cwd=folder, stdout=output, stderr=output
        )
    try:

        def live() -> bool:
            assert process.poll() is None, log.read_text()
            return httpx.get(f"http://{POD}:{port}/health/liveness", trust_env=False).is_success

        eventually(live, seconds=120)
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_pod_is_reached_at_its_own_address_and_its_metrics_at_a_port_of_their_own(tmp_path: Path) -> None:
    (metrics,) = free_ports(1)
    with pod(tmp_path, "evaluation", "confusion_matrix", LAYERSCOPE_METRICS_ADDRESS=f":{metrics}") as port:
        ready = httpx.get(f"http://{POD}:{port}/health/readiness", trust_env=False)
        assert ready.text == "evaluation: ready\nconfusion_matrix: ready"
        assert httpx.get(f"http://{POD}:{port}/metrics", trust_env=False).status_code == 400
        assert b"layerscope_answers" in httpx.get(f"http://{POD}:{metrics}/metrics", trust_env=False).content


def test_a_public_query_asks_for_its_key_and_shows_no_metrics(tmp_path: Path) -> None:
    (metrics,) = free_ports(1)
    settings = {"LAYERSCOPE_API_KEY": "k", "LAYERSCOPE_METRICS_ADDRESS": f":{metrics}", "LAYERSCOPE_HOSTS": POD}
    with pod(tmp_path, "query", **settings) as port:
        asked = {"trust_env": False, "timeout": 60}
        assert httpx.get(f"http://{POD}:{port}/openapi.json", **asked).status_code == 401
        with_key = {"authorization": "Bearer k"}
        assert httpx.get(f"http://{POD}:{port}/openapi.json", headers=with_key, **asked).status_code == 200
        assert httpx.get(f"http://{POD}:{port}/metrics", headers=with_key, **asked).status_code == 404


def test_an_idle_connection_outlives_the_pools_of_those_who_send(tmp_path: Path) -> None:
    (metrics,) = free_ports(1)
    with pod(tmp_path, "evaluation", LAYERSCOPE_METRICS_ADDRESS=f":{metrics}") as port:
        connection = http.client.HTTPConnection(POD, port, timeout=60)
        for pause in (0, LONGER_THAN_SERVERS_KEEP_THEM):
            time.sleep(pause)
            connection.request("GET", "/health/liveness")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"alive")
        connection.close()
