"""What `func` builds a function from: `functions/<name>/func.yaml` and `pyproject.toml`.

`func` sees one folder, so what that needs comes from an index, in the release of this checkout. func.yaml says what the
Service's manifest says, as far as it has words for it: not for a GPU, a time-out, a startup probe or a read-only root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from layerscope.deployment.functions import Function, functions
from layerscope.deployment.manifests import HEADER, text
from layerscope.deployment.services import SETTINGS, hosts_and_subscriptions, service

SPECIFICATION: Final = "0.36.0"
CREATED: Final = "2026-11-21T00:00:00Z"
ANNOTATION: Final = "autoscaling.knative.dev/"
SCALE: Final = {"min": "min-scale", "max": "max-scale", "utilization": "target-utilization-percentage"}

# `func` may build for Pythons that layerscope is not made for; its resolver has to find an answer for those as well.
_PROJECT = """[project]
name = "function"
version = "0"
dependencies = ["layerscope{extra}=={version}; python_version >= '3.11'"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
force-include = {{ "func.py" = "function/__init__.py" }}
"""


def files() -> dict[str, str]:
    """Return the text of each file of each function, by its path in `functions/`."""
    made: dict[str, str] = {}
    for one in functions():
        host = hosts_and_subscriptions(one)[0][0]
        made[f"{one.name}/func.yaml"] = text([described_by(service(host))], one.purpose)
        made[f"{one.name}/pyproject.toml"] = HEADER + _project(one)
    return made


def _project(function: Function) -> str:
    extra = "" if function.image == "layerscope-base" else "[compute]"
    return _PROJECT.format(extra=extra, version=version("layerscope"))


def described_by(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return func.yaml for the manifest of a Service."""
    template = manifest["spec"]["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    labels = manifest["metadata"]["labels"] | template["metadata"]["labels"]
    return {
        "specVersion": SPECIFICATION,
        "name": manifest["metadata"]["name"],
        "runtime": "python",
        "created": CREATED,
        "invoke": "http",
        "run": {
            "envs": [*_settings(), *container["env"]],
            "volumes": list(_volumes(pod["volumes"], container["volumeMounts"])),
        },
        "deploy": {
            # Who may reach it, and what it may reach, is told by labels.
            "labels": [{"key": key, "value": value} for key, value in labels.items()],
            "serviceAccountName": pod["serviceAccountName"],
            "healthEndpoints": {
                "liveness": container["livenessProbe"]["httpGet"]["path"],
                "readiness": container["readinessProbe"]["httpGet"]["path"],
            },
            "options": {
                "scale": _scale(template["metadata"]["annotations"]),
                "resources": {
                    "requests": {name: container["resources"]["requests"][name] for name in ("cpu", "memory")},
                    "limits": {
                        "memory": container["resources"]["limits"]["memory"],
                        "concurrency": pod["containerConcurrency"],
                    },
                },
            },
        },
    }


def _settings() -> Iterator[dict[str, str]]:
    """Yield the ConfigMap and the Secret that every function has its settings from, as `func` writes them."""
    for kind in ("configMap", "secret"):
        yield {"value": f"{{{{ {kind}:{SETTINGS} }}}}"}


def _volumes(volumes: list[Mapping[str, Any]], mounts: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    by_name = {one["name"]: one["emptyDir"] for one in volumes}
    for mount in mounts:
        yield {"emptyDir": by_name[mount["name"]], "path": mount["mountPath"]}


def _scale(annotations: Mapping[str, str]) -> dict[str, int]:
    return {word: int(annotations[ANNOTATION + of]) for word, of in SCALE.items() if ANNOTATION + of in annotations}
