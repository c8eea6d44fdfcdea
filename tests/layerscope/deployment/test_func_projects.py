"""A function is built by `func` from its folder alone: no other file of the repository is there, and an index is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from layerscope.deployment.func_projects import described_by, files
from layerscope.events import http
from layerscope.events.cloudevent import compose
from layerscope.functions.__main__ import names
from layerscope.schemas.events import ProductRequested
from layerscope.schemas.products import declared_products
from layerscope.stack.ports import free_ports
from tests.stack import ROOT, eventually

MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: predictions
  labels: {networking.knative.dev/visibility: cluster-local}
spec:
  template:
    metadata:
      labels: {layerscope.io/uses-s3: 'true'}
      annotations:
        autoscaling.knative.dev/min-scale: '0'
        autoscaling.knative.dev/max-scale: '3'
        autoscaling.knative.dev/target-utilization-percentage: '100'
    spec:
      serviceAccountName: layerscope
      containerConcurrency: 1
      timeoutSeconds: 540
      containers:
        - image: layerscope-compute
          env: [{name: LAYERSCOPE_LIMIT_SECONDS, value: '120'}]
          readinessProbe: {httpGet: {path: /health/readiness}}
          livenessProbe: {httpGet: {path: /health/liveness}}
          resources:
            requests: {cpu: '1', memory: 4096Mi, ephemeral-storage: 256Mi}
            limits: {memory: 8192Mi, nvidia.com/gpu: '1'}
          volumeMounts: [{name: scratch, mountPath: /tmp}]
      volumes: [{name: scratch, emptyDir: {sizeLimit: 8Gi}}]
"""
DESCRIBED = {
    "specVersion": "0.36.0",
    "name": "predictions",
    "runtime": "python",
    "created": "2026-11-21T00:00:00Z",
    "invoke": "http",
    "run": {
        "envs": [
            {"value": "{{ configMap:layerscope }}"},
            {"value": "{{ secret:layerscope }}"},
            {"name": "LAYERSCOPE_LIMIT_SECONDS", "value": "120"},
        ],
        "volumes": [{"emptyDir": {"sizeLimit": "8Gi"}, "path": "/tmp"}],
    },
    "deploy": {
        "labels": [
            {"key": "networking.knative.dev/visibility", "value": "cluster-local"},
            {"key": "layerscope.io/uses-s3", "value": "true"},
        ],
        "serviceAccountName": "layerscope",
        "healthEndpoints": {"liveness": "/health/liveness", "readiness": "/health/readiness"},
        "options": {
            "scale": {"min": 0, "max": 3, "utilization": 100},
            "resources": {
                "requests": {"cpu": "1", "memory": "4096Mi"},
                "limits": {"memory": "8192Mi", "concurrency": 1},
            },
        },
    },
}

# What `func` writes around a function, in our words: it installs the folder, as `function`, and serves its `new`.
SCAFFOLD = {
    "pyproject.toml": """[project]
name = "service"
version = "0"
dependencies = ["func-python", "function @ {root:uri}/f"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.metadata]
allow-direct-references = true
""",
    "service/__init__.py": "",
    "service/main.py": "from func_python.http import serve\nfrom function import new\nserve(new)\n",
}


def test_func_yaml_says_what_a_manifest_says_as_far_as_it_can() -> None:
    assert described_by(yaml.safe_load(MANIFEST)) == DESCRIBED


def test_the_files_are_those_that_are_made() -> None:
    made = files()
    assert sorted(made) == sorted(f"{name}/{file}" for name in names() for file in ("func.yaml", "pyproject.toml"))
    differing = [path for path, text in made.items() if (ROOT / "functions" / path).read_text() != text]
    assert differing == [], "`make manifests` writes them"


def test_what_a_function_is_built_from_has_torch_where_it_reads_models_or_uploads() -> None:
    with_torch = sorted(
        path.partition("/")[0]
        for path, text in files().items()
        if path.endswith(".toml") and "layerscope[compute]==" in text
    )
    assert with_torch == sorted(
        ["admit", "inference", "stage", *(one.declared.name for one in declared_products() if one.declared.reads_model)]
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel of this checkout, as an index has it after a release."""
    folder = tmp_path_factory.mktemp("index")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluation", "query"])
def test_a_folder_alone_and_an_index_are_enough_to_build_and_serve(name: str, index: Path, tmp_path: Path) -> None:
    root = tmp_path / name
    shutil.copytree(ROOT / "functions" / name, root, ignore=shutil.ignore_patterns("__pycache__"))
    build = root / ".func" / "build"
    for path, text in SCAFFOLD.items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_text(text)
    (build / "f").symlink_to(Path("..") / "..")
    install(build, index)
    assert (build / "lib" / "function" / "__init__.py").read_text() == (root / "func.py").read_text()
    with served(build, LAYERSCOPE_API_KEY="k") as address:
        if name == "query":
            assert httpx.get(f"{address}/openapi.json", trust_env=False, timeout=60).status_code == 401
            return
        asked = ProductRequested(dataset="d", model="m", version="1", product=name)
        headers, body = http.to_binary(compose(asked, source="/tests", subject="d/m/1"))
        answer = httpx.post(address, headers=headers, content=body, trust_env=False, timeout=120)
        assert answer.status_code == 503, answer.text  # the event was understood, and no store answers at this address


def install(build: Path, index: Path) -> None:
    """Install the scaffold as `func` does, and of what it asks for only what is ours: the rest is here already."""
    (dependency,) = tomllib.loads((build / "f/pyproject.toml").read_text())["project"]["dependencies"]
    wanted = dependency.partition(";")[0]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(index), "--target", "lib"]
    for what in (".", "./f", wanted):
        made = subprocess.run(
            [*pip, "--no-deps", "--no-build-isolation", what], cwd=build, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr


@contextmanager
def served(build: Path, **given: str) -> Iterator[str]:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(build),
        "PYTHONPATH": str(build / "lib"),
        "LISTEN_ADDRESS": address,
        "S3_ENDPOINT": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s",
        **given,
    }
    log = build / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "service/main.py"], cwd=build, env=environment, stdout=output, stderr=output
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return httpx.get(f"http://{address}/health/readiness", trust_env=False).is_success

        eventually(ready, seconds=200)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()
