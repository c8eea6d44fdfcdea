"""Answers that are kept, by what was asked and the index's generation: in this process first, then in the cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import Counter
from pydantic import ValidationError

from functions.cache import Cache
from functions.server import Scope
from functions.single_flight import SingleFlight
from schemas.digests import digest
from schemas.queries import Answer

KEPT = 1_024

_lookups = Counter("layerscope_query_lookups", "Cached questions, by where the answer was", ["found"])
_near = _lookups.labels("near")


class Answered:
    """Looks answers up, and has each that is not there made once, however many ask at the same time."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._near: OrderedDict[tuple[str | None, str, bytes], bytes] = OrderedDict()
        self._flight: SingleFlight[bytes] = SingleFlight()

    async def again(self, scope: Scope) -> bytes | None:
        """Return the answer that this process has given to the same words, unless the index has moved since."""
        if not self._near or scope["method"] != "GET":
            return None
        key = _words(await self._cache.generation(), scope)
        found = self._near.get(key)
        if found is not None:
            self._near.move_to_end(key)
            _near.inc()
        return found

    async def get(
        self, scope: Scope, asked: Mapping[str, object], body: type[Answer], make: Callable[[], Awaitable[Answer]]
    ) -> bytes:
        """Return the JSON of the answer to a request; while the cache is down nothing is kept.

        Args:
            scope: the request, in the words it came in.
            asked: what it means: the same for all who ask the same, however they put it.
            body: what the answer is.
            make: finds the answer.
        """

        async def made() -> bytes:
            return (await make()).model_dump_json().encode()

        generation = await self._cache.generation()
        if generation is None:
            return await self._flight.run(digest(asked), made)
        key = f"{generation}:{digest(asked)}"
        answer = await self._flight.run(key, lambda: self._looked_up(key, body, made))
        self._near[_words(generation, scope)] = answer
        if len(self._near) > KEPT:
            self._near.popitem(last=False)
        return answer

    async def _looked_up(self, key: str, body: type[Answer], made: Callable[[], Awaitable[bytes]]) -> bytes:
        found = _valid(body, await self._cache.get(key))
        _lookups.labels("nowhere" if found is None else "cache").inc()
        if found is None:
            found = await made()
            await self._cache.set(key, found)
        return found


def _words(generation: str | None, scope: Scope) -> tuple[str | None, str, bytes]:
    return generation, scope["path"], scope["query_string"]


def _valid(body: type[Answer], found: bytes | None) -> bytes | None:
    """Return what the cache gave if it is such an answer: others can write there as well."""
    if found is None:
        return None
    try:
        body.model_validate_json(found)
    except ValidationError:
        return None
    return found
