"""The next stage: its replicas, of which each request goes to the one with the fewest under way, and again to another.

A stage computes the same bits from the same bytes, so a request may be repeated as long as its caller waits: where a
replica does not answer, is full, or lacks something. What a stage behind it has said is the answer, and is not asked for
again: that stage was asked often enough. On Knative an address is a Service, whose load balancing comes first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from layerscope.functions.stage.messages import SECONDS_LEFT
from layerscope.schemas.errors import LayerscopeError

PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between one round over all replicas and the next; the last again and again."""
DOWN_SECONDS: Final = 1.0
"""For so long, a replica that did not answer is asked only where no other is left."""
CONNECT_SECONDS: Final = 2.0
PASSED_ON: Final = "layerscope-passed-on"
"""The header of an answer that a stage further behind has given."""
_ROUNDS: Final[Mapping[int, int]] = {429: 1, 500: 1, 502: len(PAUSES), 503: len(PAUSES)}
"""By status, how often all replicas are asked once more; other statuses stand."""


class Late(LayerscopeError):
    """The caller's time was over before a replica had answered."""


class Replicas:
    """The addresses of one stage."""

    def __init__(self, addresses: Sequence[str], client: httpx.AsyncClient) -> None:
        self._client = client
        self._under_way = dict.fromkeys(addresses, 0)
        self._down_until = dict.fromkeys(addresses, 0.0)

    async def send(self, path: str, headers: Mapping[str, str], body: bytes, seconds: float) -> httpx.Response:
        """Return the answer of a replica: of the first that has one; else, after some rounds, that all are busy or fail.

        Raises:
            Late: none answered in time.
        """
        until, rounds = time.monotonic() + seconds, 0
        while True:
            answer = await self._round(path, headers, body, until)
            if answer is not None and (_stands(answer) or rounds >= _ROUNDS[answer.status_code]):
                return answer
            pause = PAUSES[min(rounds, len(PAUSES) - 1)]
            if time.monotonic() + pause >= until:
                raise Late(f"no replica of the next stage answered within {seconds:.1f} s")
            await asyncio.sleep(pause)
            rounds += 1

    async def _round(self, path: str, headers: Mapping[str, str], body: bytes, until: float) -> httpx.Response | None:
        """Ask one replica after the other; return the first answer that stands, else the last there was."""
        waiting, answer = set(self._under_way), None
        while waiting:
            address = self._least(waiting)
            waiting.remove(address)
            left = until - time.monotonic()
            if left <= 0:
                return answer
            # One that hangs takes a part of the time, and leaves the rest to the others.
            answered = await self._one(address + path, headers, body, left, left / (1 + len(waiting)), address)
            if answered is not None:
                answer = answered
                if _stands(answer):
                    return answer
        return answer

    async def _one(
        self, url: str, headers: Mapping[str, str], body: bytes, left: float, share: float, address: str
    ) -> httpx.Response | None:
        timeout = httpx.Timeout(share, connect=min(share, CONNECT_SECONDS))
        self._under_way[address] += 1
        try:
            async with asyncio.timeout(share):
                return await self._client.post(
                    url, headers={**headers, SECONDS_LEFT: f"{left:.3f}"}, content=body, timeout=timeout
                )
        except (httpx.TransportError, TimeoutError):
            self._down_until[address] = time.monotonic() + DOWN_SECONDS
            return None
        finally:
            self._under_way[address] -= 1

    def _least(self, addresses: set[str]) -> str:
        now = time.monotonic()
        return min(addresses, key=lambda one: (self._down_until[one] > now, self._under_way[one], one))


def _stands(answer: httpx.Response) -> bool:
    """Tell whether asking again would change nothing."""
    return answer.status_code not in _ROUNDS or PASSED_ON in answer.headers
