"""A cluster with one GPU: one Service for every function that can use it, on both lanes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from layerscope.deployment.delivery import MARGIN_SECONDS, SERVING_MOST_SECONDS
from layerscope.deployment.functions import Size, functions
from layerscope.deployment.services import Host, service

PARTITIONS: Final = 1
"""Of the topic of events, which the component sets: each Trigger then has one call in flight."""

NAME: Final = "gpu"
SIZE: Final = Size("2", 8192, 24576, most_disk_gb=16)
STEP_SECONDS: Final = 10


def one_gpu() -> dict[str, Any]:
    """Return the Service; its calls take turns, so their limit is what lets the last of them end within Serving's."""
    on_gpu = tuple(one for one in functions() if one.on_gpu)
    calls = sum(len(one.lanes) for one in on_gpu) * PARTITIONS
    limit = STEP_SECONDS * int((SERVING_MOST_SECONDS - 2 * MARGIN_SECONDS) / (calls + 1) / STEP_SECONDS)
    hosted = tuple(replace(one, limit_seconds=limit, most=1, size=SIZE) for one in on_gpu)
    return service(Host(NAME, hosted, "all", SERVING_MOST_SECONDS, concurrency=calls, least=0, most=1))
