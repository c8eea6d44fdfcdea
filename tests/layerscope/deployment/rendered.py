"""Overlays as kustomize renders them, for tests: those of `knative/overlays`, and one for each component."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.deployment.overlays import KNATIVE, components, overlays, render

SYSTEMS = sorted(set(overlays()) - {"strimzi-topics"})
"""Overlays that are a whole system."""

GOES_WITH = {
    "gpu-shared": ["gpu"],
    "gpu-mig": ["gpu"],
    "gpu-nodes": ["gpu"],
    "tls": ["sasl"],
    "sasl": ["tls"],
    "mtls": ["tls"],
}
"""What a component is used with; those without a device of their own are tried with cpu."""

DEVICES = ("cpu", "gpu", "one-gpu")
Document = dict[str, Any]


@cache
def overlay(name: str, tools: KubernetesTools) -> tuple[Document, ...]:
    return parsed(render(overlays()[name], tools))


def parsed(text: str) -> tuple[Document, ...]:
    return tuple(yaml.safe_load_all(text))


def with_components(folder: Path, tools: KubernetesTools, *names: str, settings: Mapping[str, str] = {}) -> str:
    """Return the rendering of base with these components, in a folder that is a test's own."""
    chosen = names if set(names) & set(DEVICES) else ("cpu", *names)
    up = os.path.relpath(KNATIVE, folder.resolve())
    literals = [f"{name}={value}" for name, value in settings.items()]
    kustomization = {
        "namespace": "layerscope",
        "resources": [f"{up}/base"],
        "components": [f"{up}/components/{name}" for name in chosen],
        "transformers": [f"{up}/transformers/settings"],
        **(
            {"configMapGenerator": [{"name": "layerscope", "behavior": "merge", "literals": literals}]}
            if settings
            else {}
        ),
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return render(folder, tools)


def of_component(name: str, folder: Path, tools: KubernetesTools) -> str:
    """Return base with a component and what it goes with, in the order in which the folder's comment says it is used."""
    others = GOES_WITH.get(name, [])
    after = [name, *others] if name == "tls" else [*others, name]
    return with_components(folder, tools, *after)


def of_kind(documents: tuple[Document, ...], *kinds: str, group: str = "") -> list[Document]:
    return [one for one in documents if one["kind"] in kinds and one["apiVersion"].startswith(group)]


def services(documents: tuple[Document, ...]) -> list[Document]:
    return of_kind(documents, "Service", group="serving.knative.dev")


def settings(documents: tuple[Document, ...]) -> dict[str, str]:
    (found,) = (one for one in of_kind(documents, "ConfigMap") if "S3_ENDPOINT" in one["data"])
    return dict(found["data"])


def pods(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document]]:
    """Yield what runs: the name of its owner, and the pod's template."""
    for one in documents:
        if one["kind"] in ("Service", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]
        elif one["kind"] == "CronJob":
            yield one["metadata"]["name"], one["spec"]["jobTemplate"]["spec"]["template"]


def containers(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document]]:
    for name, template in pods(documents):
        (container,) = template["spec"]["containers"]
        yield name, container


COMPONENTS = sorted(components())
