"""Answers that are kept, by what was asked and the state of the index: in this process first, then in the cache.

The state is that of the parts of the index, datasets and collections, which the answer was made from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from prometheus_client import Counter
from pydantic import ValidationError

from layerscope.functions.runtime.asgi import Scope
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.schemas.digests import digest
from layerscope.schemas.queries import Answer
from layerscope.stores.cache import SECONDS, Cache

A = TypeVar("A", bound=Answer)

KEPT = 1_024
SOON = 60.0

_lookups = Counter("layerscope_query_lookups", "Cached questions, by where the answer was", ["found"])
_near = _lookups.labels("near")


Words = tuple[str, bytes]
"""A path and its query, as they came."""


@dataclass(frozen=True, slots=True)
class Near:
    """An answer, with the state of the parts of the index that it was made from."""

    parts: frozenset[str]
    generation: str
    answer: bytes


class Answered:
    """Looks answers up, and has each that is not there made once, however many ask at the same time."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._near: OrderedDict[Words, Near] = OrderedDict()
        self._flight: SingleFlight[tuple[bytes, bool]] = SingleFlight()

    async def again(self, scope: Scope) -> bytes | None:
        """Return the answer that this process has given to the same words, unless the index has moved since."""
        words = _words(scope)
        found = self._near.get(words) if scope["method"] == "GET" else None
        if found is None or await self._cache.generation(found.parts) != found.generation:
            return None
        if words in self._near:
            self._near.move_to_end(words)
        _near.inc()
        return found.answer

    async def get(
        self,
        scope: Scope,
        asked: Mapping[str, object],
        body: type[A],
        make: Callable[[], Awaitable[A]],
        *,
        lasting: Callable[[A], bool] = lambda _: True,
        seconds: float = SECONDS,
        soon: float = SOON,
        parts: Collection[str] = (),
    ) -> bytes:
        """Return the JSON of the answer to a request; while the cache is down nothing is kept.

        Args:
            scope: the request, in the words it came in.
            asked: what it means: the same for all who ask the same, however they put it.
            body: what the answer is.
            make: finds the answer.
            lasting: whether it is as good as it can be; else it is kept for `soon` seconds, and by the cache alone.
            seconds: how long the cache keeps one that is.
            soon: 0, where the next one who asks may be answered better.
            parts: of the index, which it depends on; none: on all of it.
        """
        parts = frozenset(parts)
        generation = await self._cache.generation(parts)  # before the answer is looked for, not after
        if generation is None:
            return (await self._flight.run(digest(asked), partial(_made, make, lasting)))[0]
        key = f"{generation}:{digest(asked)}"
        answer, lasts = await self._flight.run(key, lambda: self._looked_up(key, body, make, lasting, (seconds, soon)))
        if lasts:
            words = _words(scope)
            self._near[words] = Near(parts, generation, answer)
            self._near.move_to_end(words)
        if len(self._near) > KEPT:
            self._near.popitem(last=False)
        return answer

    async def _looked_up(
        self,
        key: str,
        body: type[A],
        make: Callable[[], Awaitable[A]],
        lasting: Callable[[A], bool],
        kept: tuple[float, float],
    ) -> tuple[bytes, bool]:
        found = await self._cache.get(key)
        known = _valid(body, found)
        _lookups.labels("nowhere" if known is None else "cache").inc()
        if found is not None and known is not None:
            return found, lasting(known)
        made, lasts = await _made(make, lasting)
        if seconds := kept[0 if lasts else 1]:
            await self._cache.set(key, made, seconds)
        return made, lasts


def _words(scope: Scope) -> Words:
    return scope["path"], scope["query_string"]


async def _made(make: Callable[[], Awaitable[A]], lasting: Callable[[A], bool]) -> tuple[bytes, bool]:
    answer = await make()
    return answer.model_dump_json().encode(), lasting(answer)


def _valid(body: type[A], found: bytes | None) -> A | None:
    """Return what the cache gave if it is such an answer: others can write there as well."""
    if found is None:
        return None
    try:
        return body.model_validate_json(found)
    except ValidationError:
        return None
