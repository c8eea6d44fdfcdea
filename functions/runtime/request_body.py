"""The body of a request, read in full and no further than its limit, within a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from layerscope.schemas.errors import BodyLate, BodyTooLarge, SenderGone

BODY_SECONDS: Final = 15.0


async def read_body(
    headers: Iterable[tuple[bytes, bytes]],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    limit: int,
    what: str,
    seconds: float = BODY_SECONDS,
) -> bytes:
    """Return the body, refusing early what is announced as too large; `what` it is, for the message.

    Raises:
        BodyTooLarge, BodyLate, SenderGone
    """
    announced = dict(headers).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(what, limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise SenderGone("the sender closed the connection before the body was complete")
                size += len(message.get("body", b""))
                if size > limit:
                    raise _too_large(what, limit)
                chunks.append(message.get("body", b""))
                if not message.get("more_body"):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise BodyLate(f"the body did not arrive within {seconds:g} s") from error


async def drop_body(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]], limit: int, seconds: float = BODY_SECONDS
) -> None:
    """Read a body and keep nothing of it: a server may close on who still sends, before the answer is read."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while size <= limit:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


def _too_large(what: str, limit: int) -> BodyTooLarge:
    # Made where it is raised: one kept in a variable there would hold on to that call, and to what it has read.
    return BodyTooLarge(f"{what} has at most {limit} bytes")
