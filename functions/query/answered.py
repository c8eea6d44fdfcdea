"""Answers that are kept: by what was asked and the generation of the index, in this process first, then in the cache."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from functions.cache import Cache
from functions.errors import Unavailable
from functions.single_flight import SingleFlight
from schemas.digests import digest

KEPT = 1_024
SECONDS = 3_600

_log = logging.getLogger(__name__)
_lookups = Counter("layerscope_query_lookups", "Cached questions, by where the answer was", ["found"])


class Answered:
    """Looks answers up, and has each that is not there made once, however many ask at the same time."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._near: OrderedDict[str, bytes] = OrderedDict()
        self._flight: SingleFlight[bytes] = SingleFlight()
        self._without = False

    async def get(self, asked: dict[str, object], make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the answer to `asked`; while the cache is down, every answer is made."""
        try:
            generation = await self._cache.generation()
            self._without = False
        except Unavailable as error:
            if not self._without:
                _log.warning("answering without the cache: %s", error)
            self._without = True
            return await self._flight.run(digest(asked), make)
        key = f"{generation}:{digest(asked)}"
        if key in self._near:
            self._near.move_to_end(key)
            _lookups.labels("near").inc()
            return self._near[key]
        return await self._flight.run(key, lambda: self._looked_up(key, make))

    async def _looked_up(self, key: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            found = await self._cache.get(key)
        except Unavailable:
            found = None
        if found is None:
            _lookups.labels("nowhere").inc()
            found = await make()
            try:
                await self._cache.set(key, found, SECONDS)
            except Unavailable as error:
                _log.warning("an answer was not kept: %s", error)
        else:
            _lookups.labels("cache").inc()
        self._near[key] = found
        if len(self._near) > KEPT:
            self._near.popitem(last=False)
        return found
