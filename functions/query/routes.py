"""The HTTP interface of `query`: routes, parameters, and how errors look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from layerscope.functions.analysis.wording import language_model
from layerscope.functions.query import (
    alike_routes,
    answers,
    operator_routes,
    page_routes,
    pair_description,
    replay_routes,
    search,
)
from layerscope.functions.query.answer_cache import Answered
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.judged_hits import Bench, bench, judged
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import K, MinAccuracy, Name, Part, Subject
from layerscope.functions.query.reference_population import References
from layerscope.functions.query.search import Question
from layerscope.functions.runtime.asgi import Send
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.files import SVG
from layerscope.schemas.identity import NAME_PATTERN, Identity
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import (
    DescriptionAnswer,
    ErrorAnswer,
    LayerList,
    ModelAnswer,
    ModelList,
    ProductAnswer,
    ProductState,
    RefusalList,
    SimilarAnswer,
)
from layerscope.stores.index_rows import CatalogueRow

SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
DRAWING_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""For a file that a browser takes for a document: what it is given has no scripts, and none would run."""
ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in (404, 409, 422, 500, 503)}


class Answers:
    """What the routes need: the services, and the answers that are kept."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.answered = Answered(services.cache)
        self._writer = language_model.from_environment()
        self._lines: tuple[str | None, list[CatalogueRow]] = (None, [])
        self._references = References(services.store)
        self._reading: SingleFlight[list[CatalogueRow]] = SingleFlight()

    async def lines(self) -> list[CatalogueRow]:
        """Return the catalogue newest first, held in memory for a generation of the index."""
        generation = await self.services.cache.generation()
        if generation is not None and self._lines[0] == generation:
            return self._lines[1]

        async def read() -> list[CatalogueRow]:
            self._lines = (generation, search.newest_first(await asyncio.to_thread(self.services.vectors.catalogue)))
            return self._lines[1]

        return await self._reading.run(str(generation), read)

    async def bench(self, dataset: str) -> Bench | None:
        """Return what similarities of a dataset are judged by."""
        lines = await self.lines()
        return await asyncio.to_thread(bench, self.services.store, self._references, dataset, lines)

    async def similar(self, request: Request, question: Question) -> Response:
        """Answer a search, from the cache if it was asked before."""
        asked = {
            "similar": question.identity.subject,
            "layer": question.layer,
            "metric": question.metric,
            "k": question.k,
            "min_accuracy": question.min_accuracy,
        }

        async def searched() -> SimilarAnswer:
            found = await asyncio.to_thread(search.similar, self.services.store, self.services.vectors, question)
            return await asyncio.to_thread(
                judged, found, question.identity, await self.bench(question.identity.dataset)
            )

        answer = await self.answered.get(request.scope, asked, SimilarAnswer, searched)
        return Response(answer, media_type="application/json")

    async def described(self, request: Request, pair: pair_description.Pair) -> Response:
        """Tell of a hit in words, from the cache if it was asked before."""

        async def described() -> DescriptionAnswer:
            given = await self.bench(pair.a.dataset)
            return await pair_description.describe(self.services.store, pair, self._writer, given)

        def lasting(answer: DescriptionAnswer) -> bool:
            return self._writer is None or answer.written_by == self._writer.name  # else: it may be there again soon

        answer = await self.answered.get(request.scope, pair.asked(), DescriptionAnswer, described, lasting=lasting)
        return Response(answer, media_type="application/json")


def application(given: Callable[[], Answers]) -> FastAPI:
    """Return the FastAPI application; `given` returns what the routes need, once the function has started."""
    app = FastAPI(title="Layerscope", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(_models(given))
    app.include_router(alike_routes.routes(lambda: given().services, lambda: given().answered, ERRORS))
    app.include_router(_searches(given))
    app.include_router(operator_routes.routes(lambda: given().services, ERRORS))
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
        if wants_page(request.scope):
            return await page_routes.model(given().services.store, Identity(dataset, model, version))
        return await asyncio.to_thread(answers.model, given().services.store, Identity(dataset, model, version))

    @routes.get("/models/{dataset}/{model}/{version}/products/{product}", response_model=ProductAnswer)
    async def product(dataset: Name, model: Name, version: Name, product: Part) -> Any:
        """Return a product: its data, and links to its files."""
        identity = Identity(dataset, model, version)
        return await asyncio.to_thread(answers.product, given().services.store, identity, product)

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
        return page_routes.page("refusals.html", refused=listed.refusals) if wants_page(request.scope) else listed

    return routes


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
        return page_routes.page("models.html", listed=listed, dataset=dataset) if wants_page(request.scope) else listed

    @routes.get("/models/{dataset}/{model}/{version}/layers/{layer}/similar", response_model=SimilarAnswer)
    async def similar(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        layer: Part,
        metric: Metric = "deconfounded",
        k: K = 10,
        min_accuracy: MinAccuracy = None,
    ) -> Response:
        """Return the layers of other models that are most like this one, on the same probe set."""
        question = Question(Identity(dataset, model, version), layer, metric, k, min_accuracy)
        answer = await given().similar(request, question)
        if not wants_page(request.scope):
            return answer
        found = SimilarAnswer.model_validate_json(bytes(answer.body))
        subject = question.identity.subject
        path = f"/models/{subject}/layers/{quote(layer, safe='')}/similar"
        return page_routes.page("similar.html", answer=found, subject=subject, path=path)

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
    ) -> Response:
        """Tell of a hit in a few sentences: how the models differ, why the layers match, what to try with the weaker one."""
        a, b = Identity(dataset, model, version), Identity.parse(other)
        answer = await given().described(request, pair_description.Pair(a, layer, b, other_layer, metric, language))
        if not wants_page(request.scope):
            return answer
        asked = urlencode({"metric": metric, "other": other, "other_layer": other_layer})
        path = f"/models/{a.subject}/layers/{quote(layer, safe='')}/similar/description?{asked}"
        return page_routes.page("hit.html", answer=DescriptionAnswer.model_validate_json(bytes(answer.body)), path=path)

    @routes.get("/{model_id}/{version_id}/{layer_id}/search", response_model=SimilarAnswer)
    async def older(
        request: Request,
        model_id: Name,
        version_id: Name,
        layer_id: Part,
        metric: Metric = "deconfounded",
        k: K = 10,
        min_accuracy: MinAccuracy = None,
    ) -> Response:
        """Answer the same question in its older form, where the model's name alone says whose layer is meant."""
        identity = search.named(await given().lines(), model_id, version_id)
        return await given().similar(request, Question(identity, layer_id, metric, k, min_accuracy))

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
