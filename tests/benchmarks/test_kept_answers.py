"""What keeping answers about models brings: the same question again, against the answer made from the bucket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.runtime.services import Services
from tests.functions.asking import OTHERS, WHO, settle, started
from tests.functions.bucket import add_dataset, services

pytestmark = pytest.mark.benchmark

AT_ONCE, ANEW = 64, 5
LEAST = {"JSON": 50.0, "page": 50.0, "compare": 50.0}
"""Times as many answers a second, to so many who ask at once, as are made from a directory."""


@pytest.fixture
def made(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    settle(made, {WHO: 0.75, OTHERS[0]: 0.5})
    return made


async def seconds(functions: list[QueryFunction], path: str, query: str, accept: bytes) -> float:
    """Return the seconds for an answer, when each of these is asked at once."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"accept", accept), (b"accept-encoding", b"gzip")],
        "scheme": "http",
        "server": ("query", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    began = time.perf_counter()
    await asyncio.gather(*(one.handle(dict(scope), receive, send) for one in functions))
    took = time.perf_counter() - began
    assert statuses == [200] * len(functions)
    return took / len(functions)


@pytest.mark.parametrize("kind", LEAST)
def test_a_kept_answer_costs_a_small_part_of_one_that_is_made(made: Services, kind: str) -> None:
    path = "/compare" if kind == "compare" else f"/models/{WHO.subject}"
    query = f"a={WHO.subject}&b={OTHERS[0].subject}" if kind == "compare" else ""
    accept = b"application/json" if kind == "JSON" else b"text/html"

    async def both() -> tuple[float, float]:
        kept = started(made)
        await seconds([kept], path, query, accept)
        again = min([await seconds([kept] * AT_ONCE, path, query, accept) for _ in range(5)])
        anew = min([await seconds([started(made)], path, query, accept) for _ in range(ANEW)])
        return again, anew

    again, anew = asyncio.run(both())
    print(f"{kind}: {1 / again:,.0f} a second again, {1 / anew:,.0f} made, {anew / again:.0f} times")
    assert anew / again > LEAST[kind]
