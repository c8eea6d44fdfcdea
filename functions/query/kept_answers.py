"""Answers about models that are kept in memory: made once for what the bucket has of these models, and packed once.

    the same request again ─▶ is the bucket as it was? (a listing of each model) ─ yes ─▶ 304, or the bytes that are kept
                                                                                 ─ no  ─▶ made anew

Who has written reads what was written: a request is answered by a look that began after it came. Requests that come
while one is under way share the next, so a model that many ask for is looked at as often as one look takes.

The state of a model is read before its answer is made, so one that changes meanwhile is found changed. ETags are weak, as
the packed form has the same (RFC 9110, 8.8.1).
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from starlette.responses import Response

from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.runtime.asgi import Scope
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.identity import Identity

MOST_BYTES: Final = 64 * 2**20
MOST_SECONDS: Final = 60.0
"""How long one is kept at most: links to files that it may hold are good for some minutes only."""
PACKED_FROM: Final = 1_024
"""Bytes from which an answer is packed for those who take it so."""

OVERHEAD: Final = 12_288
"""Bytes of what is around an answer: the words in which it was asked for, headers, objects."""

Words = tuple[str, bytes, bool]
"""A path and its query as they came, and whether a page is wanted."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, plain and packed, with the models that it is about and the state in which they were."""

    about: tuple[Identity, ...]
    state: tuple[str | None, ...]
    made: float
    etag: str
    plain: Response
    packed: Response | None
    unchanged: Response

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        return OVERHEAD + len(self.plain.body) + (len(self.packed.body) if self.packed is not None else 0)

    def for_(self, scope: Scope) -> Response:
        """Return the response to a request."""
        given = dict(scope["headers"])
        held = given.get(b"if-none-match", b"").strip()
        if held == b"*" or self.etag.removeprefix("W/").encode() in held:  # compared weakly, RFC 9110, 13.1.2
            return self.unchanged
        return self.packed if self.packed is not None and takes_gzip(given.get(b"accept-encoding", b"")) else self.plain


class Looks:
    """Looks at models, each of which is shared by all who asked before it began."""

    def __init__(self, look: Callable[[Identity], str | None]) -> None:
        self._look = look
        self._under_way: dict[Identity, asyncio.Task[str | None]] = {}
        self._next: dict[Identity, asyncio.Task[str | None]] = {}

    async def at(self, identity: Identity) -> str | None:
        """Return what a look that begins now finds."""
        task = self._next.get(identity)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._after(identity, self._under_way.get(identity)))
            self._next[identity] = task
        return await asyncio.shield(task)  # one who gives up must not take the answer from the others

    async def _after(self, identity: Identity, before: asyncio.Task[str | None] | None) -> str | None:
        if before is not None:
            await asyncio.wait([before])
        task = self._under_way[identity] = self._next.pop(identity)
        try:
            return await asyncio.to_thread(self._look, identity)
        finally:
            if self._under_way.get(identity) is task:
                del self._under_way[identity]


class KeptAnswers:
    """Keeps answers by the words in which they were asked for, the least recently used go first."""

    def __init__(self, state: Callable[[Identity], str | None]) -> None:
        """Keep nothing yet; `state` returns a digest of all that the bucket has of a model, and may block."""
        self._looks = Looks(state)
        self._kept: OrderedDict[Words, Kept] = OrderedDict()
        self._bytes = 0
        self._making: SingleFlight[Kept] = SingleFlight()

    async def again(self, scope: Scope) -> Response | None:
        """Return the response to a request that was made before, if what it is about is as it was."""
        words = _words(scope)
        found = self._kept.get(words) if scope["method"] == "GET" else None
        if found is None:
            return None
        if time.monotonic() - found.made > MOST_SECONDS:
            return None
        try:
            state = await self._states(found.about)
        except LayerscopeError:  # the store is down, say: it is told where all errors are
            return None
        if state != found.state:
            return None
        if words in self._kept:
            self._kept.move_to_end(words)
        return found.for_(scope)

    async def get(self, scope: Scope, about: Collection[Identity], make: Callable[[], Awaitable[Response]]) -> Response:
        """Return the response that `make` makes, and keep it; raises what `make` raises."""
        words, models = _words(scope), tuple(about)
        state = await self._states(models)
        kept = await self._making.run(f"{words} {state}", lambda: self._made(words, models, state, make))
        return kept.for_(scope)

    async def _made(
        self,
        words: Words,
        about: tuple[Identity, ...],
        state: tuple[str | None, ...],
        make: Callable[[], Awaitable[Response]],
    ) -> Kept:
        response = await make()
        made = await asyncio.to_thread(_kept, about, state, response)
        self._forget(words)
        self._kept[words] = made
        self._bytes += made.size
        while self._bytes > MOST_BYTES:
            self._forget(next(iter(self._kept)))
        return made

    def _forget(self, words: Words) -> None:
        if (old := self._kept.pop(words, None)) is not None:
            self._bytes -= old.size

    async def _states(self, models: tuple[Identity, ...]) -> tuple[str | None, ...]:
        return tuple(await asyncio.gather(*map(self._looks.at, models)))


def takes_gzip(accepted: bytes) -> bool:
    """Tell whether an Accept-Encoding takes gzip."""
    weights = {}
    for one in accepted.split(b","):
        name, _, weight = one.partition(b";")
        weights[name.strip()] = weight.replace(b" ", b"")
    given = weights.get(b"gzip", weights.get(b"*"))
    return given is not None and given not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")


def _words(scope: Scope) -> Words:
    return scope["path"], scope["query_string"], wants_page(scope)


def _kept(about: tuple[Identity, ...], state: tuple[str | None, ...], response: Response) -> Kept:
    body = bytes(response.body)
    etag = f'W/"{sha256(body).hexdigest()[:32]}"'
    varies = {"etag": etag, "vary": "accept, accept-encoding", "cache-control": "no-cache"}
    headers = {name: value for name, value in response.headers.items() if name != "content-length"} | varies
    packed = None
    if len(body) >= PACKED_FROM:
        content = gzip.compress(body, compresslevel=6, mtime=0)
        packed = Response(content, headers={**headers, "content-encoding": "gzip"})
    policy = "content-security-policy"  # browsers take what a 304 says of it for the page that they have
    unchanged = Response(status_code=304, headers=varies | {n: v for n, v in headers.items() if n == policy})
    return Kept(about, state, time.monotonic(), etag, Response(body, headers=headers), packed, unchanged)
