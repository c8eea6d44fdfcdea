"""The labels by which components and policies choose: the lane, the device, and what a function talks to."""

from __future__ import annotations

from typing import Final

from layerscope.deployment.functions import Dependency, Function, Lane

DOMAIN: Final = "layerscope.io"
PART_OF: Final = {"app.kubernetes.io/part-of": "layerscope"}


def labels(function: Function, lane: Lane) -> dict[str, str]:
    """Return the labels of a function's Services and Triggers on a lane."""
    return {**PART_OF, f"{DOMAIN}/device": "gpu" if function.on_gpu else "none", f"{DOMAIN}/lane": lane}


def uses(*dependencies: Dependency) -> dict[str, str]:
    """Return the labels of a pod that NetworkPolicies go by."""
    return {f"{DOMAIN}/uses-{one}": "true" for one in dependencies}
