"""The routes that search for similar layers: as JSON and as a page, a hit in words, and the older form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import (
    Better,
    K,
    MaxDepth,
    MinAccuracy,
    MinDepth,
    Name,
    OfFamily,
    OverProbe,
    Part,
    SameDataset,
    Subject,
    model_filters,
)
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.search import Question
from layerscope.functions.query.similarity import older, pair_description
from layerscope.functions.query.similarity.filters import Filters
from layerscope.functions.query.similarity.nearest_rows import Per
from layerscope.functions.query.similarity.probe_sets import chosen
from layerscope.schemas.depths import RoleAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import DescriptionAnswer, OlderAnswer, SimilarAnswer

OnePer = Annotated[Per, Query(description="model: of each model version the one best layer")]
Cursor = Annotated[str | None, Query(max_length=5_000, description="the `next` of the page before")]


def _layers(
    models: Annotated[Filters, Depends(model_filters)], min_depth: MinDepth = None, max_depth: MaxDepth = None
) -> Filters:
    return dataclasses.replace(models, min_depth=min_depth, max_depth=max_depth)


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `given` returns what they need, once the function has started."""
    routes = APIRouter(responses=errors)

    @routes.get("/models/{dataset}/{model}/{version}/layers/{layer}/similar", response_model=SimilarAnswer)
    async def similar(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        layer: Part,
        filters: Annotated[Filters, Depends(_layers)],
        metric: Metric = "deconfounded",
        k: K = 10,
        per: OnePer = "layer",
        cursor: Cursor = None,
        probe: OverProbe = None,
        family: OfFamily = None,
    ) -> Response:
        """Return the layers of other models that are most like this one, on the same probe set."""
        identity = Identity(dataset, model, version)
        over = chosen(probe, filters, identity)
        question = Question(identity, layer, metric, k, filters, per, cursor, over, family)
        answer = await given().similar(request, question)
        if not wants_page(request.scope):
            return answer
        found = SimilarAnswer.model_validate_json(bytes(answer.body))
        path = f"/models/{question.identity.subject}/layers/{quote(layer, safe='')}/similar"
        return page_routes.page(
            "similar.html", answer=found, asked=question, probe=probe, link=page_routes.links(request, path)
        )

    @routes.get("/models/{dataset}/{model}/{version}/layers/{layer}/depths", response_model=RoleAnswer)
    async def depths(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        layer: Part,
        models: Annotated[Filters, Depends(model_filters)],
        metric: Metric = "deconfounded",
        k: K = 100,
        cursor: Cursor = None,
        probe: OverProbe = None,
        family: OfFamily = None,
    ) -> Response:
        """Tell where in other models the role of this layer is played: earlier, about as deep, or later."""
        identity = Identity(dataset, model, version)
        over = chosen(probe, models, identity)
        question = Question(identity, layer, metric, k, models, "model", cursor, over, family)
        answer = await given().roles(request, question)
        if not wants_page(request.scope):
            return answer
        found = RoleAnswer.model_validate_json(bytes(answer.body))
        path = f"/models/{question.identity.subject}/layers/{quote(layer, safe='')}/depths"
        return page_routes.page("depths.html", answer=found, asked=question, link=page_routes.links(request, path))

    @routes.get(
        "/models/{dataset}/{model}/{version}/layers/{layer}/similar/description", response_model=DescriptionAnswer
    )
    async def described(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        layer: Part,
        other: Subject,
        other_layer: Annotated[str, Query(max_length=512)],
        language: Language = "en",
        metric: Metric = "deconfounded",
        probe: OverProbe = None,
    ) -> Response:
        """Tell of a hit in a few sentences: how the models differ, why the layers match, what to try with the weaker one."""
        a, b = Identity(dataset, model, version), Identity.parse(other)
        over = probe or ("own" if a.dataset == b.dataset else "common")
        pair = pair_description.Pair(a, layer, b, other_layer, metric, language, over)
        answer = await given().described(request, pair)
        if not wants_page(request.scope):
            return answer
        words = urlencode({"metric": metric, "probe": over, "other": other, "other_layer": other_layer})
        path = f"/models/{a.subject}/layers/{quote(layer, safe='')}/similar/description?{words}"
        return page_routes.page("hit.html", answer=DescriptionAnswer.model_validate_json(bytes(answer.body)), path=path)

    @routes.get("/{model_id}/{version_id}/{layer_id}/search", response_model=OlderAnswer)
    async def search(
        request: Request,
        model_id: Name,
        version_id: Name,
        layer_id: Part,
        metric: Annotated[
            Metric | None, Query(description="left out: deconfounded, and cka where a layer has no other answer")
        ] = None,
        min_accuracy: MinAccuracy = None,
        better: Better = False,
        same_dataset: SameDataset = False,
    ) -> Response:
        """Return the one best layer of another model version, in the older form; names as in `model_{id}_v{version}`."""
        identity = older.named(await given().lines(), model_id, version_id)
        filters = Filters(min_accuracy=min_accuracy, better=better, same_dataset=same_dataset)
        return await given().older(request, Question(identity, layer_id, "deconfounded", 1, filters), metric)

    return routes
