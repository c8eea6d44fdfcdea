"""The route that searches for similar classes: which classes of other models, on any dataset, respond to the same images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.classes_alike import Per, Question, classes_alike
from layerscope.functions.query.filters import Filters
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import K, Name, Part
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.similar_routes import (
    Architecture,
    Better,
    Cursor,
    LeaveOut,
    MaxAccuracy,
    MinAccuracy,
    OnDataset,
    SameDataset,
)
from layerscope.schemas.classes import ClassAlikeAnswer
from layerscope.schemas.identity import Identity

PATH: Final = "/models/{dataset}/{model}/{version}/classes/{label:path}/alike"
"""A name may hold a slash, and then comes with it as %2F."""

OtherDatasets = Annotated[bool, Query(description="only models on other datasets than the asked model's")]
OnePer = Annotated[Per, Query(description="model: of each model version the one best class")]


def _filters(
    on_dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    other_datasets: OtherDatasets = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    leave_out: LeaveOut = "version",
) -> Filters:
    return Filters(
        dataset=on_dataset,
        same_dataset=same_dataset,
        other_datasets=other_datasets,
        min_accuracy=min_accuracy,
        max_accuracy=max_accuracy,
        better=better,
        architecture=architecture,
        leave_out=leave_out,
    )


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
        filters: Annotated[Filters, Depends(_filters)],
        k: K = 10,
        per: OnePer = "model",
        cursor: Cursor = None,
    ) -> Response:
        """Return the classes of other models, on any dataset, that respond most like this one; `label`: its name or number."""
        question = Question(Identity(dataset, model, version), label, k, filters, per, cursor)
        answers = given()

        async def found() -> ClassAlikeAnswer:
            services, lines = answers.services, await answers.lines()
            return await asyncio.to_thread(
                classes_alike, services.store, services.vectors, answers.classes, lines, question
            )

        answer = await answers.answered.get(request.scope, question.asked(), ClassAlikeAnswer, found)
        if not wants_page(request.scope):
            return Response(answer, media_type="application/json")
        shown = ClassAlikeAnswer.model_validate_json(answer)
        return page_routes.page("classes.html", answer=shown, asked=question, link=_links(request, question))

    return made


def _links(request: Request, asked: Question) -> Callable[..., str]:
    """Return what writes the address of the same search with other parameters; None leaves one out."""
    path = f"/models/{asked.identity.subject}/classes/{quote(asked.label, safe='')}/alike"
    present = {name: value for name, value in request.query_params.items() if name != "format" and value}

    def link(**changed: str | None) -> str:
        chosen = {name: value for name, value in {**present, **changed}.items() if value is not None}
        return f"{path}?{urlencode(chosen)}" if chosen else path

    return link
