"""The route that asks `inference` about a picture: it hands the body on, and the answer back; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.asked_inference import asked
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Name
from layerscope.functions.query.route_services import Answers
from layerscope.functions.runtime.request_body import read_body
from layerscope.schemas.errors import BodyLate, BodyTooLarge, SenderGone
from layerscope.schemas.identity import Identity
from layerscope.schemas.inference import PICTURE_BYTES, PredictionAnswer
from layerscope.schemas.queries import ErrorAnswer

PATH: Final = "/models/{dataset}/{model}/{version}/predict"
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
        path = PATH.format(dataset=dataset, model=model, version=version)
        answer = await asked(given().inference, "POST", path, body, request.headers.get("content-type", ""))
        if wants_page(request.scope):
            shown = PredictionAnswer.model_validate_json(answer)
            return page_routes.page("prediction.html", inline_pictures=True, answer=shown, identity=identity)
        return Response(answer, media_type="application/json", headers={"cache-control": "no-store"})

    return made
