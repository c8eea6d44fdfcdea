"""The routes by which models are compared with each other: those most like one, and two side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.images.paired import paired_or_why_not
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import (
    K,
    Name,
    OfFamily,
    OverProbe,
    Subject,
    model_filters,
)
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.similarity.alike import Question, alike
from layerscope.functions.query.similarity.comparison import compare
from layerscope.functions.query.similarity.filters import Filters
from layerscope.functions.query.similarity.probe_sets import chosen
from layerscope.functions.query.similarity.similar_routes import Cursor
from layerscope.schemas.alike import AlikeAnswer, CompareAnswer
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Debiased, Metric
from layerscope.stores.object_store import ObjectStore


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `given` returns what they need, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/models/{dataset}/{model}/{version}/similar", response_model=AlikeAnswer)
    async def models_alike(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        filters: Annotated[Filters, Depends(model_filters)],
        metric: Debiased = "deconfounded",
        k: K = 10,
        family: OfFamily = None,
        cursor: Cursor = None,
        probe: OverProbe = None,
    ) -> Response:
        """Return the models most like this one: layers in order, a score, the family by weights; the nearest better one."""
        identity = Identity(dataset, model, version)
        question = Question(identity, metric, k, filters, family, chosen(probe, filters, identity), cursor)

        async def found() -> AlikeAnswer:
            judges, vectors = await given().bench(dataset, question.probe), await given().index(question)
            return await asyncio.to_thread(alike, given().services.store, vectors, question, judges)

        parts = await given().parts(question)
        answer = await given().answered.get(
            request.scope, question.asked(), AlikeAnswer, found, lasting=_lasting, parts=parts
        )
        if not wants_page(request.scope):
            return Response(answer, media_type="application/json")
        shown = AlikeAnswer.model_validate_json(answer)
        path = f"/models/{question.identity.subject}/similar"
        return page_routes.page(
            "alike.html", answer=shown, asked=question, probe=probe, link=page_routes.links(request, path)
        )

    @made.get("/compare", response_model=CompareAnswer)
    async def compared(
        request: Request, a: Subject, b: Subject, metric: Metric = "deconfounded", probe: OverProbe = None
    ) -> Any:
        """Compare two models layer by layer, with the path of best matches, and by their weights."""
        store, pair = given().services.store, (Identity.parse(a), Identity.parse(b))

        async def made() -> Response:
            if wants_page(request.scope):
                return await page_routes.compared(store, *pair, metric, probe)
            answer = await asyncio.to_thread(_side_by_side, store, *pair, metric, probe)
            return Response(answer.model_dump_json(), media_type="application/json")

        return await given().kept.get(request.scope, pair, made)

    return made


def _side_by_side(
    store: ObjectStore, a: Identity, b: Identity, metric: Metric, probe: ProbeName | None
) -> CompareAnswer:
    answer = compare(store, a, b, metric, probe)
    images, why_not = paired_or_why_not(store, a, b)
    return answer.model_copy(update={"paired": images, "paired_reason": why_not})


def _lasting(answer: AlikeAnswer) -> bool:
    """Tell whether an answer holds until the index moves: a sketch of weights may come without that."""
    return all(hit.family is not None for hit in answer.hits)
