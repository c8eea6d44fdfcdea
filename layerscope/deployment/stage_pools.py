"""A Service for each stage of models that are split: a pool of replicas that keeps the weights of its own stage only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from layerscope.deployment.functions import functions
from layerscope.deployment.services import hosts_and_subscriptions, service

STAGE: Final = "stage"
COUNTS: Final = {"two-stages": 2, "three-stages": 3}
"""How many pools each component has."""


def stage_pools(count: int) -> list[dict[str, Any]]:
    """Return so many Services, `stage-0` and on: each the one of the base but for its name."""
    (function,) = (one for one in functions() if one.name == STAGE)
    (host,), _ = hosts_and_subscriptions(function)
    return [service(replace(host, name=f"{STAGE}-{number}")) for number in range(count)]


def addresses(count: int) -> str:
    """Return where the pools are, as LAYERSCOPE_STAGE_URLS has it."""
    return ",".join(f"http://{STAGE}-{number}.{{namespace}}.svc.cluster.local" for number in range(count))


def component(count: int) -> dict[str, Any]:
    """Return the kustomization: the pools take the place of the one Service of the base."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": ["services.yaml"],
        "configMapGenerator": [
            {"name": "layerscope", "behavior": "merge", "literals": [f"LAYERSCOPE_STAGE_URLS={addresses(count)}"]}
        ],
        "patches": [
            {
                "target": {"kind": "Service", "name": STAGE},
                "patch": "$patch: delete\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: stage\n",
            }
        ],
    }
