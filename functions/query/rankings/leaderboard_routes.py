"""The route of a dataset's leaderboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import Field

from layerscope.functions.query import page_routes
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.page.leaderboard_page import leaderboard_page
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Blank, MinAccuracy, Name
from layerscope.functions.query.rankings.leaderboard import Per, Ranking, in_order, points, ranked
from layerscope.functions.query.route_services import Answers
from layerscope.schemas.leaderboard import Cost, LeaderboardAnswer, Order, RankedBy
from layerscope.schemas.queries import ProductState
from layerscope.stores import datasets
from layerscope.stores.dataset_names import dataset_names, probably_meant
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore

MOST: Final = 10**15
Text = Annotated[str, Field(max_length=200)]
Sort = Annotated[RankedBy, Query(description="by which figure; those of which it is not known come last")]
Ordered = Annotated[Order | None, Blank, Query(description="left out: the best first")]
Search = Annotated[Text | None, Blank, Query(description="only models with this in MODEL/VERSION, in any case")]
State = Annotated[ProductState | None, Blank, Query(description="only models in this state")]
Architecture = Annotated[Text | None, Blank, Query(description="only models of this class, such as ResNet")]
Size = Annotated[int, Field(ge=0, le=MOST)]
MinParameters = Annotated[Size | None, Blank, Query(description="only models with at least so many parameters")]
MaxParameters = Annotated[Size | None, Blank, Query(description="likewise, at most")]
PerWhat = Annotated[Per, Query(description="version: each has a place; model: only its version that comes first")]
ByCost = Annotated[Cost, Query(description="what accuracy is held against in `front`")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the route; `given` returns what it needs, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/datasets/{dataset}", response_model=LeaderboardAnswer)
    async def leaderboard(
        request: Request,
        dataset: Name,
        sort: Sort = "accuracy",
        order: Ordered = None,
        q: Search = None,
        state: State = None,
        architecture: Architecture = None,
        min_parameters: MinParameters = None,
        max_parameters: MaxParameters = None,
        min_accuracy: MinAccuracy = None,
        per: PerWhat = "version",
        cost: ByCost = "multiply_adds",
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Any:
        """Rank a dataset's models by a figure."""
        asked = Ranking(
            sort=sort,
            order=order,
            q=q,
            state=state,
            architecture=architecture,
            min_parameters=min_parameters,
            max_parameters=max_parameters,
            min_accuracy=min_accuracy,
            per=per,
            cost=cost,
            limit=limit,
            cursor=cursor,
        )
        answers = given()
        lines, store = await answers.lines(), answers.services.store
        wanted, link = wants_page(request.scope), page_routes.links(request, f"/datasets/{dataset}")

        def answered() -> Response:
            described = datasets.describe(store, dataset)
            notice = None if described else _no_dataset(store, lines, dataset)
            found = answers.boards.of(lines, dataset)
            chosen = in_order(found, asked)
            answer = ranked(found, asked, chosen, dataset, described, notice)
            if not wanted:
                return Response(answer.model_dump_json(), media_type="application/json")
            content = leaderboard_page(answer, asked, points(chosen, cost), link)
            return HTMLResponse(content, headers=page_routes.headers())

        return await asyncio.to_thread(answered)

    return made


def _no_dataset(store: ObjectStore, lines: Sequence[CatalogueRow], dataset: str) -> str:
    """Say that there is no dataset of this name, and which was probably meant.

    Raises:
        Unanswerable: there are no models of that name either.
    """
    with_models = {line.subject.partition("/")[0] for line in lines}
    names = dataset_names(store)
    if dataset in with_models:
        near = probably_meant(dataset, names)
        meant = f" Did you mean {near}?" if near else ""
        return f"There is no dataset {dataset}, so nothing is measured on it.{meant}"
    near = probably_meant(dataset, {*names, *with_models})
    there = ", ".join(sorted({*names, *with_models})[:20])
    hint = f"did you mean {near}?" if near else f"there are: {there}" if there else "layerscope datasets add NAME"
    raise Unanswerable(404, "no-such-dataset", f"There is no dataset {dataset}.", hint)
