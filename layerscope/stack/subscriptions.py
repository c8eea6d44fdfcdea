"""What the data plane of a stack on this machine says of its subscriptions, asked over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from layerscope.stack.environment import Stack
from layerscope.systems import DATAPLANE_URL


def subscriptions_of(stack: Stack) -> tuple[str | None, tuple[dict[str, Any], ...]]:
    """Return where the data plane answers, and what it says of its subscriptions; None where it does not answer."""
    try:
        url = (stack.directory / DATAPLANE_URL).read_text().strip()
        answer = httpx.get(f"{url}/status", timeout=10, trust_env=False)
        return f"{url}/status", tuple(answer.raise_for_status().json())
    except (OSError, httpx.HTTPError, ValueError):
        return None, ()
