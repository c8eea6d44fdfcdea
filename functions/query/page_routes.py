"""The pages' share of the HTTP interface: the same paths as the JSON, for those who accept HTML."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.images.paired import paired_or_why_not
from layerscope.functions.query.page.compare_page import compare_page
from layerscope.functions.query.page.model_data import ModelData
from layerscope.functions.query.page.model_page import Beside, model_page
from layerscope.functions.query.page.picture_field import picture_field
from layerscope.functions.query.page.rendering import assets, render
from layerscope.functions.query.page.sections import page_sections
from layerscope.functions.query.similarity.comparison import compare
from layerscope.functions.runtime.asgi import Scope
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores import datasets
from layerscope.stores.object_store import ObjectStore


def headers(pictures: Iterable[str] = (), *, inline: bool = False) -> dict[str, str]:
    """Return the headers of a page; pictures may come from here, from where these URLs lead, and `inline` with the page."""
    data = " data:" if inline else ""
    places = sorted({f" {url.scheme}://{url.netloc}" for url in map(urlsplit, pictures) if url.netloc})
    policy = (
        f"default-src 'none'; img-src 'self'{data}{''.join(places)}; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "vary": "accept", "cache-control": "no-cache"}


def wants_page(scope: Scope) -> bool:
    """Tell whether a request accepts HTML, as browsers do and programs do not; `format=json` declines it."""
    if b"format=json" in scope["query_string"].split(b"&"):
        return False
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return b"text/html" in accepted


def page(
    template: str, status: int = 200, *, inline_pictures: bool = False, pictures: Iterable[str] = (), **values: Any
) -> HTMLResponse:
    """Return an answer made from a template; `pictures` are the URLs of those that it shows, if they lead elsewhere."""
    return HTMLResponse(render(template, **values), status, headers=headers(pictures, inline=inline_pictures))


def error_page(status: int, answer: ErrorAnswer) -> HTMLResponse:
    """Return an error as a page."""
    return page("error.html", status, **answer.model_dump())


def links(request: Request, path: str) -> Callable[..., str]:
    """Return what writes the address of the same search with other parameters; None leaves one out."""
    present = {name: value for name, value in request.query_params.items() if name != "format" and value}

    def link(end: str = "", **changed: str | None) -> str:
        chosen = {name: value for name, value in {**present, **changed}.items() if value is not None}
        return f"{path}{end}?{urlencode(chosen)}" if chosen else f"{path}{end}"

    return link


async def model(store: ObjectStore, identity: Identity, beside: Beside | None) -> HTMLResponse:
    """Return the page of a model version, with the way to those beside it."""

    def made() -> HTMLResponse:
        view = answers.everything(store, identity)
        links = [file.url for product in view.products.values() for file in product.files]
        data = ModelData(view, lambda file: file.url, partial(answers.content, store))
        described = datasets.describe(store, identity.dataset)
        content = model_page(data, page_sections(), picture_field(described) if described else None, beside)
        return HTMLResponse(content, headers=headers(links, inline=True))

    return await asyncio.to_thread(made)


async def compared(
    store: ObjectStore, a: Identity, b: Identity, metric: Metric, probe: ProbeName | None
) -> HTMLResponse:
    """Return the page of two models; what else there is to tell of them needs no layers."""

    def made() -> HTMLResponse:
        both = answers.everything(store, a), answers.everything(store, b)
        try:
            answer, why_not = compare(store, a, b, metric, probe), None
        except Unanswerable as error:
            answer, why_not = None, error.answer.message
        told = compare_page(*both, answer, why_not, *paired_or_why_not(store, a, b))
        return HTMLResponse(told, headers=headers())

    return await asyncio.to_thread(made)


def routes(error: Callable[[], Unanswerable]) -> APIRouter:
    """Return what only pages need: the way in, and the assets."""
    made = APIRouter(include_in_schema=False)

    @made.get("/")
    async def entry() -> Response:
        return RedirectResponse("/models", 307)

    @made.get("/assets/{digest}/{name}")
    async def asset(digest: str, name: str) -> Response:
        found = assets().get(name)
        if found is None or found.url != f"/assets/{digest}/{name}":
            raise error()
        keep = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(found.text, media_type=found.media_type, headers=keep)

    return made
