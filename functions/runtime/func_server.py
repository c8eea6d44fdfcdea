"""func-python's own server, which `func` puts around a function: what it fixes, and this system needs otherwise."""

from __future__ import annotations

import sys
from typing import Final

IDLE_SECONDS: Final = 75
"""Longer than clients keep an idle connection (Knative's dispatcher: 10 s): one that is just being used is not closed."""


def configure(drain_seconds: float) -> None:
    """Let that server's calls end after SIGTERM, and keep its connections; without effect under another server.

    hypercorn cancels calls 3 s after SIGTERM and closes idle connections after 5 s. func-python makes its configuration
    by itself, so these are set where the instance looks for what it does not have: in the class.
    """
    if (module := sys.modules.get("hypercorn.config")) is not None:
        module.Config.graceful_timeout = drain_seconds
        module.Config.keep_alive_timeout = IDLE_SECONDS
