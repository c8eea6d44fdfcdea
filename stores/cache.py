"""Answers that were given before, and the token of the index's present state: Redis, or a dictionary in this process.

A token stands for the rows as they are: `index` makes a new one whenever it has written, and whoever caches puts it
into the key. So nothing is ever removed by hand, and what was found in an older state is asked for by nobody. Tokens
are random: a cache that was lost and comes back empty cannot bring an old state back.

The index has parts, a dataset or a collection, each with a token of its own, so that an upload to one dataset leaves
the answers about others as they are. An answer depends on every part that it was made from.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, Final, Protocol

from layerscope.events.tls import handshake_fault
from layerscope.schemas.errors import Unavailable

SECONDS: Final = 600.0
ANSWER_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 1.0
HELD_SECONDS: Final = 0.05
ENTRIES: Final = 4_096
HELD_TOKENS: Final = 1_024
CLOSING_SECONDS: Final = 0.05  # for a connection that was refused: the event loop closes its socket only afterwards

_log = logging.getLogger(__name__)


class Cache(Protocol):
    """Bytes by key, for a while. A reader never fails for it: where the cache is down there is simply nothing in it."""

    async def get(self, key: str) -> bytes | None:
        """Return the value of `key`; None where there is none, or the cache is down."""

    async def set(self, key: str, value: bytes, seconds: float = SECONDS) -> None:
        """Keep a value for at most `seconds`."""

    async def generation(self, parts: Collection[str] = ()) -> str | None:
        """Return the token of the present state of these parts of the index; of the whole of it, if none is named.

        None while that cannot be known, and nothing may be reused.
        """

    async def bump(self, parts: Collection[str] | None = None) -> None:
        """Make new tokens: these parts of the index have changed, and so has the whole; None: every part has.

        Raises:
            Unavailable: the cache does not answer, so that readers might go on with the old token.
        """

    async def close(self) -> None:
        """Let go of the connections."""


class MemoryCache:
    """The cache of one process: the values used last, up to a number of them; safe in threads."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    async def get(self, key: str) -> bytes | None:
        with self._lock:
            until, value = self._kept.get(key, (0.0, b""))
            if until <= time.monotonic():
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return value

    async def set(self, key: str, value: bytes, seconds: float = SECONDS) -> None:
        with self._lock:
            self._kept[key] = (time.monotonic() + seconds, value)
            self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)

    async def generation(self, parts: Collection[str] = ()) -> str | None:
        with self._lock:
            return ".".join(self._tokens.setdefault(name, _token()) for name in _names(parts))

    async def bump(self, parts: Collection[str] | None = None) -> None:
        with self._lock:
            self._tokens.update({name: _token() for name in _moved(parts)})

    async def close(self) -> None:
        """Nothing is held."""


class RedisCache:
    """The cache of all processes; connects on first use. One object serves one event loop.

    The server should keep nothing on disk: a restored snapshot would bring back a token with the answers of its time.
    """

    def __init__(self, url: str, *, cafile: Path | None = None, namespace: str = "layerscope") -> None:
        """Connect to nothing yet.

        Args:
            url: `redis://…`, or with TLS `rediss://…`; it may hold a user and a password.
            cafile: authorities to trust besides those of the system, in PEM.
            namespace: what all keys begin with, so that several systems can share a server.
        """
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        trusted: dict[str, Any] = {} if cafile is None else {"ssl_ca_certs": str(cafile)}
        self._prefix = f"{namespace}:"
        self._redis = Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection from before the server's restart is replaced
            **trusted,
        )
        self._down_until = 0.0
        self._is_down = False
        self._held: dict[tuple[str, ...], tuple[float, str]] = {}

    async def get(self, key: str) -> bytes | None:
        found = await self._asked(lambda: self._redis.get(self._prefix + key))
        return found if isinstance(found, bytes) else None

    async def set(self, key: str, value: bytes, seconds: float = SECONDS) -> None:
        await self._asked(lambda: self._redis.set(self._prefix + key, value, px=max(1, int(seconds * 1000))))

    async def generation(self, parts: Collection[str] = ()) -> str | None:
        names = _names(parts)
        until, token = self._held.get(names, (0.0, ""))
        if time.monotonic() < until:
            return token
        found = await self._tokens(names)
        if found is None:
            return None
        if len(self._held) >= HELD_TOKENS:
            self._held.clear()
        self._held[names] = (time.monotonic() + HELD_SECONDS, ".".join(found))
        return self._held[names][1]

    async def bump(self, parts: Collection[str] | None = None) -> None:
        from redis.exceptions import RedisError

        try:
            await self._redis.mset({self._key(name): _token() for name in _moved(parts)})
        except RedisError as error:
            raise Unavailable(f"the cache does not answer: {_fault(error)}") from error
        self._held.clear()

    async def check(self) -> None:
        """Ask the server for a sign of life.

        Raises:
            Unavailable: it gives none; the message says why.
        """
        from redis.exceptions import RedisError

        try:
            await self._redis.ping()
        except RedisError as error:
            raise Unavailable(f"the cache does not answer: {_fault(error)}") from error

    async def close(self) -> None:
        await self._redis.aclose()
        await asyncio.sleep(CLOSING_SECONDS)

    def _key(self, name: str) -> str:
        return f"{self._prefix}generation:{name}"

    async def _tokens(self, names: tuple[str, ...]) -> list[str] | None:
        """Return the tokens of these names, made where there are none yet; None where they cannot be known."""
        keys = [self._key(name) for name in names]
        for _ in range(2):
            found = await self._asked(lambda: self._redis.mget(keys))
            if not isinstance(found, list):
                return None
            lacking = [key for key, token in zip(keys, found, strict=True) if token is None]
            if not lacking:
                return [token.decode() for token in found]
            for key in lacking:  # of many who find it lacking, the first makes it
                await self._asked(lambda key=key: self._redis.set(key, _token(), nx=True))  # type: ignore[misc]
        return None

    async def _asked(self, command: Callable[[], Awaitable[object]]) -> object:
        """Return the server's answer; None while it is down, which is found out once a pause and logged once."""
        from redis.exceptions import RedisError

        if time.monotonic() < self._down_until:
            return None
        try:
            answer = await command()
        except RedisError as error:
            self._down_until = time.monotonic() + PAUSE_SECONDS
            if not self._is_down:
                self._is_down = True
                _log.warning("the cache does not answer, and is done without: %s", _fault(error))
            return None
        if self._is_down:
            self._is_down = False
            _log.info("the cache answers again")
        return answer


WHOLE: Final = "whole"
EPOCH: Final = "epoch"


def _token() -> str:
    return secrets.token_hex(16)


def _names(parts: Collection[str]) -> tuple[str, ...]:
    """Return the tokens that a state of these parts is made of: the epoch moves all of them at once."""
    return (EPOCH, *sorted(f"part:{part}" for part in set(parts))) if parts else (EPOCH, WHOLE)


def _moved(parts: Collection[str] | None) -> tuple[str, ...]:
    return (EPOCH,) if parts is None else (WHOLE, *sorted(f"part:{part}" for part in set(parts)))


def _fault(error: Exception) -> str:
    """Return what is wrong, without the client's own words, which may hold the URL."""
    if type(error).__name__ == "AuthenticationError":
        return "it asks for another password, or another user, than REDIS_URL gives"
    return str(handshake_fault(error, "REDIS_SSL_CAFILE") or type(error).__name__)
