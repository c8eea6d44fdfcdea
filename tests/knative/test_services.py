"""Every Service of the manifests, started as its container is: its command, its environment and no other, reached as a pod is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.deployment.overlays import KNATIVE
from layerscope.stack.ports import free_ports
from tests.layerscope.deployment.rendered import Document, overlay, services, settings
from tests.stack import ROOT, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REFUSALS = {400, 404, 421, 422}  # no event, no path of inference, a host that query is not known by, no notification
POD = "127.0.0.2"  # an address of this machine that a server on 127.0.0.1 does not answer at
SECRETS: dict[str, str] = next(
    one["stringData"]
    for one in yaml.safe_load_all((KNATIVE / "secrets.example.yaml").read_text(encoding="utf-8"))
    if one["metadata"]["name"] == "layerscope"
)


def environment_of(service: Document, documents: tuple[Document, ...], port: int, metrics: int) -> dict[str, str]:
    """Return what the container is given by its manifest, by Kubernetes and by Knative.

    A pod has an address of its own and all containers here share one, so that the ports are other ones.
    """
    (container,) = service["spec"]["template"]["spec"]["containers"]
    given = dict(settings(documents)) | SECRETS
    for variable in container.get("env", ()):
        given[variable["name"]] = variable["value"] if "value" in variable else SECRETS[_secret(variable)]
    knative = {"PORT": str(port), "K_SERVICE": service["metadata"]["name"], "K_REVISION": "r", "K_CONFIGURATION": "c"}
    kubernetes = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "LAYERSCOPE_METRICS_ADDRESS": f":{metrics}"}
    return {**given, **knative, **kubernetes, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


def _secret(variable: Mapping[str, Any]) -> str:
    return str(variable["valueFrom"]["secretKeyRef"]["key"])


def probed(service: Document, documents: tuple[Document, ...], folder: Path) -> dict[str, object]:
    """Start a Service's container, do what its probes do and send each of its functions what is no event."""
    (container,) = service["spec"]["template"]["spec"]["containers"]
    port, metrics = free_ports(2)
    assert container["command"][0] == "python"
    log = folder / f"{service['metadata']['name']}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *container["command"][1:], *container["args"]],
            env=environment_of(service, documents, port, metrics),
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        with httpx.Client(base_url=f"http://{POD}:{port}", trust_env=False, timeout=60) as client:

            def probe(kind: str) -> bool:
                assert process.poll() is None, log.read_text()
                return client.get(container[kind]["httpGet"]["path"]).status_code == 200

            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                eventually(lambda kind=kind: probe(kind), seconds=300)
            paths = ["/"] if len(container["args"]) == 1 else [f"/{name}" for name in container["args"]]
            statuses = {path: client.post(path, content=b"{}").status_code in REFUSALS for path in paths}
        exposed = httpx.get(f"http://{POD}:{metrics}/metrics", trust_env=False, timeout=60).status_code
        process.terminate()
        return {"refused": statuses, "metrics": exposed, "drained": process.wait(120) in (0, -signal.SIGTERM)}
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("system", ["laptop", "one-gpu"])
def test_every_service_lives_with_its_manifests_environment(
    system: str, kubernetes_tools: KubernetesTools, tmp_path: Path
) -> None:
    documents = overlay(system, kubernetes_tools)
    found = services(documents)
    with ThreadPoolExecutor(2) as threads:
        seen = dict(
            zip(
                [one["metadata"]["name"] for one in found],
                threads.map(lambda one: probed(one, documents, tmp_path), found),
                strict=True,
            )
        )
    for service in found:
        (container,) = service["spec"]["template"]["spec"]["containers"]
        names = container["args"]
        paths = ["/"] if len(names) == 1 else [f"/{name}" for name in names]
        expected = {"refused": dict.fromkeys(paths, True), "metrics": 200, "drained": True}
        assert seen[service["metadata"]["name"]] == expected, service["metadata"]["name"]
