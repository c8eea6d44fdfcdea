"""A system in a directory whose models went through the real functions: what pages are made from."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from layerscope.events.cloudevent import compose
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products

ALL = tuple(product.declared.name for product in declared_products())


@dataclass
class Given:
    """A file as it is uploaded, what lies beside it, and the products that are made of it; or one that is there.

    `announced_bytes` is what its event says of its size.
    """

    subject: str
    content: bytes
    beside: Mapping[str, bytes] = field(default_factory=dict)
    products: Collection[str] = ALL
    is_there: bool = False
    announced_bytes: int = 0

    @property
    def identity(self) -> Identity:
        return Identity.parse(self.subject)


def analyse(services: Services, *given: Given) -> None:
    """Put files into the bucket, and have each function do its part, one after the other."""

    async def analysed() -> None:
        functions = {
            name: importlib.import_module(f"layerscope.functions.{name}.func").new()
            for name in ("admit", *ALL, "index")
        }
        for function in functions.values():
            function.attach(services)
        try:
            for one in given:
                if not one.is_there:
                    _put(services, one)
                    put = ModelUploaded(bucket=keys.MODELS, key=_key(one), etag="", size=one.announced_bytes)
                    await _ask(functions["admit"], one, put)
                for name in (*ALL, "index"):
                    if name in one.products or name == "index":
                        await _ask(functions[name], one, ProductRequested(**_who(one.identity), product=name))
        finally:
            for function in functions.values():
                function.stop()

    asyncio.run(analysed())


def _key(one: Given) -> str:
    return keys.upload(one.identity)


def _who(identity: Identity) -> dict[str, str]:
    return {"dataset": identity.dataset, "model": identity.model, "version": identity.version}


def _put(services: Services, one: Given) -> None:
    for ending, content in one.beside.items():
        services.store.put(keys.MODELS, keys.sidecar(one.identity, ending), content)
    services.store.put(keys.MODELS, _key(one), one.content)


async def _ask(function: EventFunction, one: Given, data: ModelUploaded | ProductRequested) -> None:
    with contextlib.suppress(Ignored):  # a refused upload has no products
        await function.respond(compose(data, source="/tests", subject=one.subject))
