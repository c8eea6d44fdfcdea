"""How patiently an event is offered: timeouts that follow from limits, within what Knative Serving allows."""

from __future__ import annotations

import math
from typing import Any, Final

from layerscope.deployment.functions import Function
from layerscope.events.topics import TOPICS

SERVING_MOST_SECONDS: Final = 600
"""`max-revision-timeout-seconds` of a cluster whose administrator has not raised it."""

MARGIN_SECONDS: Final = 30
STEP_SECONDS: Final = 30
DEAD_LETTERS_SINK: Final = "dead-letters"


def partitions(topic: str) -> int:
    """Return how many partitions a topic has: an ordered subscription has one call in flight in each."""
    (found,) = (one.partitions for one in TOPICS if one.name == topic)
    return found


def timeout_seconds(call_seconds: float, in_flight: int, replicas: int = 1) -> int:
    """Return for how long a call is waited for: its own time, after that of all which may be before it.

    Raises:
        ValueError: Serving would end the call earlier; the message says what to do.
    """
    needed = call_seconds * (in_flight / max(replicas, 1) + 1)
    seconds = STEP_SECONDS * math.ceil((needed + MARGIN_SECONDS) / STEP_SECONDS)
    if seconds + MARGIN_SECONDS > SERVING_MOST_SECONDS:
        raise ValueError(
            f"{in_flight} calls of {call_seconds:g} s on {max(replicas, 1)} replicas can take {needed:g} s, and Serving "
            f"ends a request after {SERVING_MOST_SECONDS} s: lower the limit or the partitions, or raise the replicas"
        )
    return seconds


def retries(function: Function) -> dict[str, Any]:
    """Return the retries of a function's Triggers: heavy work is offered again more slowly."""
    pause = 1 if function.image == "layerscope-base" else 2
    return {"retry": function.retry, "backoffPolicy": "exponential", "backoffDelay": f"PT{pause}S"}


def iso_duration(seconds: int) -> str:
    """Return seconds as an ISO 8601 duration."""
    minutes, rest = divmod(seconds, 60)
    return "PT" + (f"{minutes}M" if minutes else "") + (f"{rest}S" if rest or not minutes else "")


def dead_letter_sink() -> dict[str, Any]:
    """Return where an event goes that no retry can help."""
    kind = {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink"}
    return {"ref": {**kind, "name": DEAD_LETTERS_SINK}}


def subscriber(service: str, function: str) -> dict[str, Any]:
    """Return the address of a function: its path at the host that serves it, alone or with others."""
    return {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": service}, "uri": f"/{function}"}
