"""The route of a model's history: all of its versions, in the order of upload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from layerscope.functions.query import page_routes
from layerscope.functions.query.answers import unknown
from layerscope.functions.query.images.answered_images import Answered, read_if_there
from layerscope.functions.query.images.image_routes import Class
from layerscope.functions.query.page.history_page import history_page
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Name
from layerscope.functions.query.rankings.boards import Board
from layerscope.functions.query.rankings.version_history import history, page_of
from layerscope.functions.query.route_services import Answers
from layerscope.schemas.identity import Identity
from layerscope.schemas.version_history import HistoryAnswer
from layerscope.stores import index_rows
from layerscope.stores.dataset_names import probably_meant
from layerscope.stores.object_store import ObjectStore

Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=300, description="`next` of the page before")]


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the route; `given` returns what it needs, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/models/{dataset}/{model}", response_model=HistoryAnswer)
    async def versions(
        request: Request, dataset: Name, model: Name, label: Class = None, limit: Limit = 50, cursor: Cursor = None
    ) -> Any:
        """List a model's versions in the order of upload, with what each fixed and broke; of one class with `label`."""
        answers = given()
        found = answers.boards.of(await answers.lines(), dataset)
        if model not in found.versions:
            _unknown(found, dataset, model)
        page = page_of(found.versions[model], limit, cursor)

        async def told() -> HistoryAnswer:
            identities = [one.identity for one in (*page.before, *page.shown)]
            answered = await _answered(answers.services.store, identities)
            return await asyncio.to_thread(history, page, answered, dataset, model, label)

        asked = {"history": f"{dataset}/{model}", "label": label, "limit": limit, "cursor": cursor}
        parts = index_rows.parts([dataset], [])
        answer = await answers.answered.get(request.scope, asked, HistoryAnswer, told, parts=parts)
        if not wants_page(request.scope):
            return Response(answer, media_type="application/json")
        link = page_routes.links(request, f"/models/{dataset}/{model}")
        content = history_page(HistoryAnswer.model_validate_json(answer), link, is_first=cursor is None)
        return HTMLResponse(content, headers=page_routes.headers())

    return made


async def _answered(store: ObjectStore, identities: Iterable[Identity]) -> dict[Identity, Answered]:
    """Read what versions answer, side by side; those whose answers are not there are left out."""
    found = await asyncio.gather(*(asyncio.to_thread(read_if_there, store, one) for one in identities))
    return {one.identity: one for one in found if one is not None}


def _unknown(found: Board, dataset: str, model: str) -> NoReturn:
    """Raise Unanswerable: there is no such model; the hint names the one that was probably meant."""
    near = probably_meant(model, found.versions)
    hint = f"did you mean {near}?" if near else f"GET /datasets/{dataset} lists those that are there"
    unknown("model", f"There is no model {dataset}/{model}.", hint)
