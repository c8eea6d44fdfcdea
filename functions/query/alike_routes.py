"""The routes by which models are compared with each other: those most like one, and two side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.alike import Question, alike
from layerscope.functions.query.answer_cache import Answered
from layerscope.functions.query.comparison import compare
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import K, MinAccuracy, Name, Subject
from layerscope.functions.runtime.services import Services
from layerscope.schemas.alike import AlikeAnswer, CompareAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Metric


def routes(
    services: Callable[[], Services], answered: Callable[[], Answered], errors: dict[int | str, dict[str, Any]]
) -> APIRouter:
    """Return the routes; the arguments return what they need, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/models/{dataset}/{model}/{version}/alike", response_model=AlikeAnswer)
    async def models_alike(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        metric: Metric = "deconfounded",
        k: K = 10,
        min_accuracy: MinAccuracy = None,
    ) -> Response:
        """Return the models most like this one: layers in order, a score, the family by weights; the nearest better one."""
        question = Question(Identity(dataset, model, version), metric, k, min_accuracy)
        subject = question.identity.subject
        asked = {"alike": subject, "metric": metric, "k": k, "min_accuracy": min_accuracy}

        async def found() -> AlikeAnswer:
            return await asyncio.to_thread(alike, services().store, services().vectors, question)

        answer = await answered().get(request.scope, asked, AlikeAnswer, found, lasting=_lasting)
        if not wants_page(request.scope):
            return Response(answer, media_type="application/json")
        shown = AlikeAnswer.model_validate_json(answer)
        return page_routes.page("alike.html", answer=shown, subject=subject, path=f"/models/{subject}/alike")

    @made.get("/compare", response_model=CompareAnswer)
    async def compared(request: Request, a: Subject, b: Subject, metric: Metric = "deconfounded") -> Any:
        """Compare two models layer by layer, with the path of best matches, and by their weights."""
        pair = (Identity.parse(a), Identity.parse(b))
        if wants_page(request.scope):
            return await page_routes.compared(services().store, *pair, metric)
        return await asyncio.to_thread(compare, services().store, *pair, metric)

    return made


def _lasting(answer: AlikeAnswer) -> bool:
    """Tell whether an answer holds until the index moves: a sketch of weights may come without that."""
    return all(hit.family is not None for hit in answer.hits)
