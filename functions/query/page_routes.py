"""The pages' share of the HTTP interface: the same paths as the JSON, for those who accept HTML."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from functions.object_store import ObjectStore
from functions.query import answers
from functions.query.answers import AskedInVain, Told
from functions.query.page.model_page import TEXTS, model_page
from functions.query.page.rendering import assets, render
from functions.server import Scope
from schemas.identity import Identity
from schemas.queries import ErrorAnswer, FileLink

PAGE_POLICY: Final = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"content-security-policy": PAGE_POLICY, "vary": "accept", "cache-control": "no-cache"}


def wants_page(scope: Scope) -> bool:
    """Tell whether a request accepts HTML, as browsers do and programs do not."""
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return b"text/html" in accepted


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return an answer made from a template."""
    return HTMLResponse(render(template, **values), status, headers=_HEADERS)


def error_page(status: int, answer: ErrorAnswer) -> HTMLResponse:
    """Return an error as a page."""
    return page("error.html", status, **answer.model_dump())


async def model(store: ObjectStore, identity: Identity) -> HTMLResponse:
    """Return the page of a model version."""

    def made() -> str:
        told = answers.everything(store, identity)
        return model_page(told, texts(store, told), lambda file: file.url)

    return HTMLResponse(await asyncio.to_thread(made), headers=_HEADERS)


def texts(store: ObjectStore, told: Told) -> Mapping[str, str]:
    """Read the products' files that a page shows as they are."""
    return {name: found for name, product, file in TEXTS if (found := _text(store, told, product, file)) is not None}


def _text(store: ObjectStore, told: Told, product: str, name: str) -> str | None:
    for file in told.products[product].files if product in told.products else ():
        if file.name == name:
            return answers.content(store, answers.file(store, told.identity, product, name)).decode()
    return None


def routes(error: Callable[[], AskedInVain]) -> APIRouter:
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


def inlined(store: ObjectStore, told: Told, encode: Callable[[FileLink], str]) -> str:
    """Return the page of a model version as one file, pictures and all."""
    return model_page(told, texts(store, told), encode, inline=True)
