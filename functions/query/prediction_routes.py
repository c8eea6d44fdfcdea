"""The route that asks `inference` about a picture: it hands the body on, and the answer back; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from layerscope.functions.query import page_routes
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Name
from layerscope.functions.query.route_services import Answers
from layerscope.functions.runtime.request_body import read_body
from layerscope.schemas.errors import BodyLate, BodyTooLarge, SenderGone
from layerscope.schemas.identity import Identity
from layerscope.schemas.inference import PICTURE_BYTES, PredictionAnswer
from layerscope.schemas.queries import ErrorAnswer

PATH: Final = "/models/{dataset}/{model}/{version}/predict"
CONNECT_SECONDS: Final = 5.0
_FILE: Final = {"schema": {"type": "string", "format": "binary"}}
_FORM: Final = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": f"a PNG, a JPEG or an array as .npy, told by its bytes; at most {PICTURE_BYTES:,} bytes",
        "content": {
            **dict.fromkeys(("image/png", "image/jpeg", "application/octet-stream"), _FILE),
            "multipart/form-data": _FORM,
        },
    }
}


def client_of(url: str | None) -> httpx.AsyncClient | None:
    """Return a client of `inference` at this address; None: there is none."""
    if url is None:
        return None
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)  # how long an answer may take, the guard says for all
    return httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False)


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the route; `given` returns what it needs, once the function has started."""
    made = APIRouter(responses={**errors, **{status: {"model": ErrorAnswer} for status in (408, 413, 415, 429)}})

    @made.post(PATH, response_model=PredictionAnswer, openapi_extra=BODY)
    async def predict(request: Request, dataset: Name, model: Name, version: Name) -> Response:
        """Say which class a model gives a picture, and what that stands on."""
        identity = Identity(dataset, model, version)
        try:
            body = await read_body(request.scope["headers"], request.receive, PICTURE_BYTES, "a picture")
        except (BodyLate, BodyTooLarge, SenderGone) as error:
            code = "body-too-large" if isinstance(error, BodyTooLarge) else "body-late"
            raise Unanswerable(error.status, code, f"{error}.", "make the picture smaller") from error
        answer = await _asked(given().inference, identity, body, request.headers.get("content-type", ""))
        if wants_page(request.scope):
            shown = PredictionAnswer.model_validate_json(answer)
            return page_routes.page("prediction.html", inline_pictures=True, answer=shown, identity=identity)
        return Response(answer, media_type="application/json", headers={"cache-control": "no-store"})

    return made


async def _asked(inference: httpx.AsyncClient | None, identity: Identity, body: bytes, content_type: str) -> bytes:
    """Return the answer of `inference`.

    Raises:
        Unanswerable: there is none but an error, or nobody answers.
    """
    if inference is None:
        raise _nobody("This server has no function inference.", "set LAYERSCOPE_INFERENCE_URL where query runs")
    path = PATH.format(dataset=identity.dataset, model=identity.model, version=identity.version)
    try:
        answer = await inference.post(path, content=body, headers={"content-type": content_type})
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise _nobody("The function inference, which runs models, does not answer.", "try again soon") from error
    if answer.status_code == httpx.codes.OK:
        return answer.content
    try:
        problem = ErrorAnswer.model_validate_json(answer.content)
    except ValidationError as error:
        message = f"The function inference, which runs models, answers with {answer.status_code}."
        raise _nobody(message, "try again soon") from error
    raise Unanswerable(answer.status_code, problem.code, problem.message, problem.hint)


def _nobody(message: str, hint: str) -> Unanswerable:
    return Unanswerable(503, "no-inference", message, hint)
