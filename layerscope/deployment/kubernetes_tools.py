"""kustomize and kubeconform, and the schemas that manifests are held against: fetched once a user, at pinned versions."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.deployment.custom_resources import json_schemas
from layerscope.schemas.errors import LayerscopeError
from layerscope.stack.programs import cache_directory

PROGRAMS: Final = (
    "sigs.k8s.io/kustomize/kustomize/v5@v5.6.0",
    "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
)
# Modules that carry the definitions of their resources: Knative 1.24 and 1.23, and the Prometheus Operator.
DEFINITIONS: Final = {
    "knative.dev/serving@v0.51.0": ("config/core/300-resources/service.yaml",),
    "knative.dev/eventing@v0.50.0": tuple(
        f"config/core/resources/{one}.yaml" for one in ("broker", "trigger", "pingsource")
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": tuple(
        f"example/prometheus-operator-crd/monitoring.coreos.com_{one}.yaml"
        for one in ("podmonitors", "prometheusrules")
    ),
}
KUBERNETES: Final = "v1.34.0"
SCHEMAS: Final = (
    "kubernetes-validate==1.37.0",
    "sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
)
NEIGHBOUR: Final = Path(__file__).parents[2].resolve().parent / "shared" / "knative-crds"
"""Where a developer may have the schemas of Knative's Kafka extension, which no registry has."""

Say = Callable[[str], None]


class ToolsMissing(LayerscopeError):
    """The tools cannot be installed; the message says what is missing, or how the command ended."""


@dataclass(frozen=True, slots=True)
class KubernetesTools:
    """Where the programs and the schemas are; `schemas` as kubeconform takes locations."""

    kustomize: Path
    kubeconform: Path
    schemas: tuple[str, ...]


def install(say: Say) -> KubernetesTools:
    """Return the tools, fetching what the user's cache lacks; safe under several installers at once and under kills.

    Raises:
        ToolsMissing: there is no Go, or a registry cannot be reached.
    """
    versions = [one.rpartition("@")[2] for one in (*PROGRAMS, *DEFINITIONS)]
    home = cache_directory() / "-".join(["kubernetes", KUBERNETES, *versions])
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / "kubernetes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            go = shutil.which("go")
            if go is None:
                raise ToolsMissing(
                    "manifests are rendered by kustomize, which is built with Go: install Go 1.24 or newer"
                )
            say("fetching kustomize, kubeconform and the schemas of Kubernetes: a minute or two, once")
            _install(home, go)
    of_ours = f"{home}/definitions/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json"
    of_kubernetes = f"{home}/{KUBERNETES}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    beside = f"{NEIGHBOUR}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json"
    return KubernetesTools(home / "kustomize", home / "kubeconform", (of_ours, beside, of_kubernetes))


def _install(home: Path, go: str) -> None:
    staging = home.with_name(f"{home.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    for program in PROGRAMS:
        _run((go, "install", program), staging, GOBIN=str(staging))
    (staging / "definitions").mkdir()
    for module, paths in DEFINITIONS.items():
        folder = Path(json.loads(_run((go, "mod", "download", "-json", module), staging))["Dir"])
        for path in paths:
            for name, schema in json_schemas((folder / path).read_text(encoding="utf-8")).items():
                (staging / "definitions" / name).write_text(json.dumps(schema), encoding="utf-8")
    _kubernetes_schemas(staging)
    staging.rename(home)


def _kubernetes_schemas(staging: Path) -> None:
    requirement, digest = SCHEMAS
    (staging / "requirements.txt").write_text(f"{requirement} --hash={digest}\n", encoding="utf-8")
    download = ("download", "-q", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", "requirements.txt")
    _run((sys.executable, "-m", "pip", "--disable-pip-version-check", *download), staging)
    (wheel,) = staging.glob("*.whl")
    folder = f"kubernetes_validate/kubernetes-json-schema/{KUBERNETES}-local-strict/"
    (staging / KUBERNETES).mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(folder) and name.endswith(".json"):
                # They call each other by addresses on the web; here they lie side by side.
                schema = json.loads(
                    archive.read(name).decode().replace('"/api/_definitions.json', '"_definitions.json')
                )
                schema.pop("$id", None)
                (staging / KUBERNETES / Path(name).name).write_text(json.dumps(schema), encoding="utf-8")
    wheel.unlink()


def _run(command: tuple[str, ...], directory: Path, **variables: str) -> str:
    ended = subprocess.run(
        command, cwd=directory, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        last = "\n".join(ended.stderr.splitlines()[-10:])
        raise ToolsMissing(f"{' '.join(command)} ended with exit status {ended.returncode}:\n{last}")
    return ended.stdout
