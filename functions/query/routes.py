"""The HTTP interface of `query`: routes, parameters, and how errors look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from layerscope.functions.query import (
    answers,
    operator_routes,
    page_routes,
    prediction_routes,
    replay_routes,
    search,
    split_routes,
)
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.images import explanation_routes, image_routes, several_routes
from layerscope.functions.query.known_parameters import only_known
from layerscope.functions.query.layers import layer_routes
from layerscope.functions.query.page.model_page import Beside
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Name, Part
from layerscope.functions.query.rankings import history_routes, leaderboard_routes
from layerscope.functions.query.rankings.version_history import beside
from layerscope.functions.query.route_services import Answers
from layerscope.functions.query.similarity import alike_routes, class_routes, similar_routes
from layerscope.functions.runtime.asgi import Send
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.files import SVG
from layerscope.schemas.identity import NAME_PATTERN, Identity
from layerscope.schemas.queries import (
    ErrorAnswer,
    LayerList,
    ModelAnswer,
    ModelList,
    ProductAnswer,
    ProductState,
    RefusalList,
)

SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
DRAWING_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""For a file that a browser takes for a document: what it is given has no scripts, and none would run."""
ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in (404, 409, 422, 500, 503)}


def application(given: Callable[[], Answers]) -> FastAPI:
    """Return the FastAPI application; `given` returns what the routes need, once the function has started."""
    app = FastAPI(
        title="Layerscope",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(only_known)],
    )
    app.include_router(_models(given))
    app.include_router(alike_routes.routes(given, ERRORS))
    app.include_router(class_routes.routes(given, ERRORS))
    app.include_router(explanation_routes.routes(given, ERRORS))
    app.include_router(image_routes.routes(given, ERRORS))
    app.include_router(layer_routes.routes(given, ERRORS))
    app.include_router(_searches(given))
    app.include_router(history_routes.routes(given, ERRORS))
    app.include_router(leaderboard_routes.routes(given, ERRORS))
    app.include_router(several_routes.routes(given, ERRORS))
    app.include_router(similar_routes.routes(given, ERRORS))
    app.include_router(split_routes.routes(lambda: given().services, ERRORS))
    app.include_router(operator_routes.routes(lambda: given().services, ERRORS))
    app.include_router(prediction_routes.routes(given, ERRORS))
    app.include_router(replay_routes.routes(lambda: given().services))
    app.include_router(page_routes.routes(_no_such_path))
    app.add_exception_handler(Unanswerable, _in_vain)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _bug)
    return app


def secured(send: Send) -> Send:
    """Return a `send` that adds the headers which every answer has, unless it brings its own."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            added = [(name, value) for name, value in SECURITY.items() if name not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


def _models(given: Callable[[], Answers]) -> APIRouter:
    routes = APIRouter(responses=ERRORS)

    @routes.get("/models/{dataset}/{model}/{version}", response_model=ModelAnswer)
    async def model(request: Request, dataset: Name, model: Name, version: Name) -> Any:
        """Tell what an upload came to, and of every product; the analysis page for those who accept HTML."""
        return await _one_model(given(), request, Identity(dataset, model, version))

    @routes.get("/models/{dataset}/{model}/{version}/products/{product}", response_model=ProductAnswer)
    async def product(dataset: Name, model: Name, version: Name, product: Part) -> Any:
        """Return a product: its data, and links to its files."""
        identity = Identity(dataset, model, version)
        return await asyncio.to_thread(answers.product, given().services.store, identity, product)

    @routes.get("/models/{dataset}/{model}/{version}/findings", response_model=ProductAnswer)
    async def findings(dataset: Name, model: Name, version: Name) -> Any:
        """Return what is wrong with a model, most costly first: the product `findings`."""
        identity = Identity(dataset, model, version)
        return await asyncio.to_thread(answers.product, given().services.store, identity, "findings")

    @routes.get("/models/{dataset}/{model}/{version}/products/{product}/{file}", response_class=Response)
    async def file(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        product: Part,
        file: Part,
        sha256: Annotated[str | None, Query(max_length=64, description="of the content that is meant")] = None,
    ) -> Response:
        """Return a file of a product; for good, if the URL has its digest."""
        store, identity = given().services.store, Identity(dataset, model, version)
        found = await asyncio.to_thread(answers.file, store, identity, product, file)
        # Without its digest the URL names a product, which may have another content tomorrow.
        keep = "public, max-age=31536000, immutable" if sha256 == found.sha256 else "no-cache"
        headers = {"etag": f'"{found.sha256}"', "cache-control": keep}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = await asyncio.to_thread(answers.content, store, found)
        if found.type == SVG.media_type:
            headers["content-security-policy"] = DRAWING_POLICY
        return Response(content, media_type=found.type, headers=headers)

    @routes.get("/models/{dataset}/{model}/{version}/layers", response_model=LayerList)
    async def layers(dataset: Name, model: Name, version: Name) -> Any:
        """List a model's layers with their health."""
        return await asyncio.to_thread(answers.layers, given().services.store, Identity(dataset, model, version))

    @routes.get("/refusals", response_model=RefusalList)
    async def refusals(request: Request) -> Any:
        """List the uploads whose keys break the rule."""
        listed = await asyncio.to_thread(search.refusals, given().services.store)
        return page_routes.page("refusals.html", listed=listed) if wants_page(request.scope) else listed

    return routes


async def _one_model(given: Answers, request: Request, identity: Identity) -> Response:
    store = given.services.store

    async def made() -> Response:
        if wants_page(request.scope):
            return await page_routes.model(store, identity, await _beside(given, identity))
        answer = await asyncio.to_thread(answers.model, store, identity)
        return Response(answer.model_dump_json(), media_type="application/json")

    return await given.kept.get(request.scope, (identity,), made)


async def _beside(given: Answers, identity: Identity) -> Beside | None:
    """Return the versions beside one; None while the index does not answer, without which its page is whole."""
    try:
        found = given.boards.of(await given.lines(), identity.dataset)
    except Unavailable:
        return None
    return beside(found, identity)


def _searches(given: Callable[[], Answers]) -> APIRouter:
    routes = APIRouter(responses=ERRORS)

    @routes.get("/models", response_model=ModelList)
    async def models(
        request: Request,
        dataset: Annotated[str | None, Query(pattern=f"^{NAME_PATTERN}$")] = None,
        state: ProductState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(max_length=300)] = None,
    ) -> Any:
        """List model versions, newest first."""
        listed = search.models(await given().lines(), dataset, state, limit, cursor)
        if not wants_page(request.scope):
            return listed
        names = sorted({line.subject.partition("/")[0] for line in await given().lines()})
        return page_routes.page("models.html", listed=listed, dataset=dataset, datasets=names)

    return routes


def _no_such_path() -> Unanswerable:
    return Unanswerable(404, "no-such-path", "Not Found.", "GET /openapi.json lists the paths")


async def _in_vain(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unanswerable)
    return _problem(request, error.status, error.answer)


async def _unavailable(request: Request, error: Exception) -> Response:
    answer = ErrorAnswer(code="unavailable", message=f"Something is down: {error}.", hint="try again soon")
    return _problem(request, 503, answer)


async def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    answer = ErrorAnswer(
        code="bad-parameter", message=f"The request cannot be understood: {faults}.", hint="GET /openapi.json"
    )
    return _problem(request, 422, answer)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = ErrorAnswer(code="no-such-path", message=f"{error.detail}.", hint="GET /openapi.json lists the paths")
    return _problem(request, error.status_code, answer)


async def _bug(request: Request, error: Exception) -> Response:
    # The server logs it; what went wrong inside is nobody else's business.
    answer = ErrorAnswer(code="internal-error", message="Something is wrong here.", hint="see query's log")
    return _problem(request, 500, answer)


def _problem(request: Request, status: int, answer: ErrorAnswer) -> Response:
    if wants_page(request.scope):
        return page_routes.error_page(status, answer)
    return JSONResponse(answer.model_dump(), status_code=status)
