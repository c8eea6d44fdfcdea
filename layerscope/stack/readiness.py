"""Whether a function or the data plane says that it is ready: asked on loopback, past any proxy."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial

from layerscope.stack.kafka_node import HOST

ANSWER_SECONDS = 30.0
"""How long a probe waits for a server that took its connection: on a busy machine one answer takes seconds."""


def probe(port: int) -> Callable[[], bool]:
    """Return the question whether what listens on this port is ready."""
    return partial(_says_ready, port)


def _says_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health/readiness")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False
