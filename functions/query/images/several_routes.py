"""The route by which two to eight models are held against each other on the same test images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.images.several import several
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import SubjectName
from layerscope.functions.query.route_services import Answers
from layerscope.schemas.identity import Identity
from layerscope.schemas.several import MOST, SeveralAnswer

Chosen = Annotated[
    list[SubjectName], Query(min_length=2, max_length=MOST, description=f"DATASET/MODEL/VERSION, two to {MOST} times")
]


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `given` returns what they need, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/compare/several", response_model=SeveralAnswer)
    async def compared(request: Request, model: Chosen) -> Any:
        """Hold two to eight models against each other on the same test images, pair by pair."""
        store, identities = given().services.store, tuple(map(Identity.parse, dict.fromkeys(model)))
        if len(identities) < 2:
            raise Unanswerable(
                409, "one-model", "One model alone is not compared.", "name two to eight, each as model="
            )
        if len(identities) == 2 and wants_page(request.scope):  # of two there is more to tell
            a, b = (one.subject for one in identities)
            return RedirectResponse(f"/compare?{urlencode({'a': a, 'b': b})}", 307)

        async def answer() -> Response:
            found = await asyncio.to_thread(several, store, identities)
            if wants_page(request.scope):
                return page_routes.page("several.html", found=found)
            return Response(found.model_dump_json(), media_type="application/json")

        return await given().kept.get(request.scope, identities, answer)

    return made
