"""The route that searches for similar classes: which classes of other models, on any dataset, respond to the same images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import K, Name, OfFamily, Part, model_filters
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.similarity.classes_alike import Per, Question, classes_alike
from layerscope.functions.query.similarity.filters import Filters
from layerscope.functions.query.similarity.similar_routes import Cursor
from layerscope.schemas.classes import ClassAlikeAnswer
from layerscope.schemas.identity import Identity

PATH: Final = "/models/{dataset}/{model}/{version}/classes/{label:path}/similar"
"""A name may hold a slash, and then comes with it as %2F."""

OnePer = Annotated[Per, Query(description="model: of each model version the one best class")]


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the route; `given` returns what it needs, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get(PATH, response_model=ClassAlikeAnswer)
    async def alike(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        label: Part,
        filters: Annotated[Filters, Depends(model_filters)],
        k: K = 10,
        per: OnePer = "model",
        cursor: Cursor = None,
        family: OfFamily = None,
    ) -> Response:
        """Return the classes of other models, on any dataset, that respond most like this one; `label`: its name or number."""
        question = Question(Identity(dataset, model, version), label, k, filters, per, cursor, family)
        answers = given()

        async def found() -> ClassAlikeAnswer:
            lines, vectors = await answers.lines(), await answers.class_index(question.identity)
            return await asyncio.to_thread(
                classes_alike, answers.services.store, vectors, answers.classes, lines, question
            )

        parts = await answers.class_parts(question.identity)
        answer = await answers.answered.get(
            request.scope,
            question.asked(),
            ClassAlikeAnswer,
            found,
            lasting=lambda _: family is None,  # a sketch of weights may come without the index moving
            parts=parts,
        )
        if not wants_page(request.scope):
            return Response(answer, media_type="application/json")
        shown = ClassAlikeAnswer.model_validate_json(answer)
        path = f"/models/{question.identity.subject}/classes/{quote(label, safe='')}/similar"
        return page_routes.page("classes.html", answer=shown, asked=question, link=page_routes.links(request, path))

    return made
