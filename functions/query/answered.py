"""Answers that are kept, by what was asked and the index's generation: in this process first, then in the cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from prometheus_client import Counter
from pydantic import ValidationError

from functions.cache import Cache
from functions.single_flight import SingleFlight
from schemas.digests import digest
from schemas.queries import Answer

KEPT = 1_024

_lookups = Counter("layerscope_query_lookups", "Cached questions, by where the answer was", ["found"])


class Answered:
    """Looks answers up, and has each that is not there made once, however many ask at the same time."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._near: OrderedDict[str, bytes] = OrderedDict()
        self._flight: SingleFlight[bytes] = SingleFlight()

    async def get(self, asked: dict[str, object], body: type[Answer], make: Callable[[], Awaitable[Answer]]) -> bytes:
        """Return the JSON of the answer to `asked`, which is a `body`; while the cache is down nothing is kept."""

        async def made() -> bytes:
            return (await make()).model_dump_json().encode()

        generation = await self._cache.generation()
        if generation is None:
            return await self._flight.run(digest(asked), made)
        key = f"{generation}:{digest(asked)}"
        if key in self._near:
            self._near.move_to_end(key)
            _lookups.labels("near").inc()
            return self._near[key]
        return await self._flight.run(key, lambda: self._looked_up(key, body, made))

    async def _looked_up(self, key: str, body: type[Answer], made: Callable[[], Awaitable[bytes]]) -> bytes:
        found = _valid(body, await self._cache.get(key))
        _lookups.labels("nowhere" if found is None else "cache").inc()
        if found is None:
            found = await made()
            await self._cache.set(key, found)
        self._near[key] = found
        if len(self._near) > KEPT:
            self._near.popitem(last=False)
        return found


def _valid(body: type[Answer], found: bytes | None) -> bytes | None:
    """Return what the cache gave if it is such an answer: others can write there as well."""
    if found is None:
        return None
    try:
        body.model_validate_json(found)
    except ValidationError:
        return None
    return found
