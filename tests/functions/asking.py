"""Asking `query`: over a directory, an index in memory, and caches of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prometheus_client import REGISTRY

from layerscope.events import http
from layerscope.events.cloudevent import compose
from layerscope.functions.index.func import new as new_index
from layerscope.functions.query.func import QueryFunction, new
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.events import ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores.cache import Cache, MemoryCache
from layerscope.stores.index_rows import EVERY_ROW, CatalogueRow, RowFilter, RowMatch, Vector
from tests.functions.bucket import Bucket
from tests.stores.exact_vector_store import NumpyStore

WHO = Identity("tiny", "net", "1")
OTHERS = [Identity("tiny", "net", "2"), Identity("tiny", "mlp", "1"), Identity("tiny", "vit", "1.5_b")]
LAYER = "features.0.conv"


class Counting(NumpyStore):
    """The index, which counts how often it is asked, and can be down."""

    def __init__(self) -> None:
        super().__init__()
        self.listings = 0
        self.is_down = False

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, where: RowFilter = EVERY_ROW
    ) -> list[list[RowMatch]]:
        self._fault()
        return super().search(collection, vectors, k=k, excluding=excluding, where=where)

    def catalogue(self) -> list[CatalogueRow]:
        self.listings += 1
        self._fault()
        return super().catalogue()

    def _fault(self) -> None:
        if self.is_down:
            raise Unavailable("Milvus does not answer")


class Down(MemoryCache):
    """A cache that is down for its readers."""

    async def generation(self, parts: Collection[str] = ()) -> str | None:
        return None


class Poisoned(MemoryCache):
    """A cache into which somebody else has written."""

    async def get(self, key: str) -> bytes | None:
        return b'{"layer": "<script>", "hits": 3}'


def looked_up(found: str) -> float:
    """Return how many cached questions had their answer there, in this process so far: near, cache, nowhere."""
    return REGISTRY.get_sample_value("layerscope_query_lookups_total", {"found": found}) or 0.0


def answers_made() -> float:
    """Return how many answers to cached questions had to be found."""
    return looked_up("nowhere")


def with_cache(made: Services, cache: Cache) -> Services:
    return Services(made.store, made.vectors, cache, made.log, made.scratch)


def started(made: Services, inference: httpx.AsyncClient | None = None) -> QueryFunction:
    function = new()
    function.attach(made, inference=inference)
    return function


@asynccontextmanager
async def opened(function: QueryFunction) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application(function), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://query") as client:
        yield client


def run(asked_of: Services | QueryFunction, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Ask a function; of services a new one is made, as after a restart."""
    function = started(asked_of) if isinstance(asked_of, Services) else asked_of

    async def asked() -> Any:
        async with asyncio.timeout(300), opened(function) as client:
            return await ask(client)

    return asyncio.run(asked())


def get(made: Services, path: str, status: int = 200, **parameters: Any) -> Any:
    answer: httpx.Response = run(made, lambda client: client.get(path, params=parameters))
    assert answer.status_code == status, answer.text
    if status != 200:
        ErrorAnswer.model_validate(answer.json())
    return answer.json()


def index(made: Services, *identities: Identity) -> None:
    """Have the index look at these models."""

    async def told() -> None:
        function = new_index()
        function.attach(made)
        transport = httpx.ASGITransport(app=application(function))
        async with httpx.AsyncClient(transport=transport, base_url="http://index") as client:
            for one in identities:
                who = {"dataset": one.dataset, "model": one.model, "version": one.version}
                event = compose(ProductRequested(**who, product="index"), source="/tests", subject=one.subject)
                headers, body = http.to_binary(event)
                assert (await client.post("/", headers=headers, content=body)).status_code == 200

    asyncio.run(told())


def settle(made: Services, accuracies: dict[Identity, float | None]) -> dict[Identity, LayerVectors]:
    found = {
        one: Bucket(made.store, one).settle(seed, accuracy) for seed, (one, accuracy) in enumerate(accuracies.items())
    }
    index(made, *accuracies)
    return found


def four(made: Services) -> dict[Identity, LayerVectors]:
    return settle(made, {WHO: 0.5, OTHERS[0]: 0.9, OTHERS[1]: None, OTHERS[2]: 0.7})


def similar(layer: str = LAYER, who: Identity = WHO) -> str:
    return f"/models/{who.subject}/layers/{layer}/similar"
