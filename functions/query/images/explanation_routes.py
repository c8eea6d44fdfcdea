"""The route that asks `inference` what an answer about a test image stands on; what it says is kept, as it never changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from layerscope.functions.query import answers, page_routes
from layerscope.functions.query.asked_inference import asked
from layerscope.functions.query.images.image_routes import Index
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Name
from layerscope.functions.query.route_services import Answers
from layerscope.schemas.digests import digest
from layerscope.schemas.explanations import EXPLANATION_RECIPE, ExplanationAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores.object_store import ObjectStore

PATH: Final = "/models/{dataset}/{model}/{version}/images/{index}/explained"
KEPT_SECONDS: Final = 30 * 24 * 3_600.0


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the route; `given` returns what it needs, once the function has started."""
    made = APIRouter(responses={**errors, 429: {"model": ErrorAnswer}})

    @made.get(PATH, response_model=ExplanationAnswer)
    async def explained(request: Request, dataset: Name, model: Name, version: Name, index: Index) -> Response:
        """Say what an answer stands on: the nearest test images, and the places of the image that speak for the class."""
        identity, services = Identity(dataset, model, version), given().services
        key = await asyncio.to_thread(_key, services.store, identity, index)
        # The name may mean another content tomorrow, so whoever keeps an answer asks whether it still is the one.
        headers = {"cache-control": "no-cache", "vary": "accept", **({"etag": f'"{key}"'} if key else {})}
        if key and not wants_page(request.scope) and headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        answer = _whole(await services.cache.get(f"explained {key}")) if key else None
        if answer is None:
            path = PATH.format(dataset=dataset, model=model, version=version, index=index)
            answer = await asked(given().inference, "GET", path)
            if key:
                await services.cache.set(f"explained {key}", answer, KEPT_SECONDS)
        if wants_page(request.scope):
            shown = ExplanationAnswer.model_validate_json(answer)
            return page_routes.page("explained.html", inline_pictures=True, answer=shown, identity=identity)
        return Response(answer, media_type="application/json", headers=headers)

    return made


def _whole(kept: bytes | None) -> bytes | None:
    """Return an answer from the cache; None where what is there is none."""
    try:
        ExplanationAnswer.model_validate_json(kept or b"")
    except ValidationError:
        return None
    return kept


def _key(store: ObjectStore, identity: Identity, index: int) -> str | None:
    """Return the digest of all that decides the answer; None: it will be that there is none.

    Raises:
        Unanswerable: there is no such model, or no such image.
    """
    facts = answers.standing(store, identity).facts
    if facts is None or facts.dataset is None:
        return None
    part = facts.dataset.part("test")
    if part is not None and index >= part.images:
        answers.unknown("image", f"The test part has {part.images} images, counted from 0.", "GET …/images lists them")
    described = facts.dataset.model_dump(mode="json")
    return digest(["explained", EXPLANATION_RECIPE, identity.subject, facts.content, described, index])
