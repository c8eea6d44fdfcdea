"""The routes of who keeps a system running: why a model is as it is, and how the whole fares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from layerscope.functions.query.answers import unknown
from layerscope.functions.query.status import status
from layerscope.functions.query.why import why
from layerscope.functions.query.why_facts import ProcessState
from layerscope.functions.query.why_sources import Watch, facts_of
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import NAME_PATTERN, Identity
from layerscope.schemas.products import declared_products
from layerscope.schemas.status import StatusAnswer
from layerscope.schemas.why import WhyAnswer

Name = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$")]


def routes(services: Callable[[], Services], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `services` returns what it asks, once the function has started."""
    router = APIRouter(responses=errors)
    watch = Watch()

    @router.get("/models/{dataset}/{model}/{version}/why", response_model=WhyAnswer)
    async def why_so(
        dataset: Name,
        model: Name,
        version: Name,
        product: Annotated[str | None, Query(max_length=64, description="one product; else all of them")] = None,
    ) -> Any:
        """Follow an upload to where it stands: upload, notification, event, line, attempts, answer, manifest, index."""
        return await asyncio.to_thread(answer, services(), Identity(dataset, model, version), product, watch)

    @router.get("/status", response_model=StatusAnswer)
    async def whole() -> Any:
        """Say how the system fares: what waits, the oldest unserved upload, the rounds of repair, dead letters, replays."""
        return await asyncio.to_thread(status, services())

    return router


def answer(
    services: Services,
    identity: Identity,
    product: str | None,
    watch: Watch,
    processes: Mapping[str, ProcessState] | None = None,
) -> WhyAnswer:
    """Gather the facts and answer.

    Raises:
        Unanswerable: there is no product of that name.
        Unavailable: the object store does not answer.
    """
    names = [one.declared.name for one in declared_products()]
    if product is not None and product not in names:
        unknown("product", f"There is no product {product!r}.", f"one of {', '.join(names)}")
    return why(facts_of(services, identity, watch, processes), product)
