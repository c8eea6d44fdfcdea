"""How `query` asks `inference`, which runs models: by its own paths, and with its own sentences where nobody answers."""

from __future__ import annotations

from typing import Final

import httpx
from pydantic import ValidationError

from layerscope.functions.query.answers import Unanswerable
from layerscope.schemas.queries import ErrorAnswer

CONNECT_SECONDS: Final = 5.0


def client_of(url: str | None) -> httpx.AsyncClient | None:
    """Return a client of `inference` at this address; None: there is none."""
    if url is None:
        return None
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)  # how long an answer may take, the guard says for all
    return httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False)


async def asked(
    inference: httpx.AsyncClient | None, method: str, path: str, body: bytes | None = None, content_type: str = ""
) -> bytes:
    """Return the answer of `inference`.

    Raises:
        Unanswerable: there is none but an error, or nobody answers.
    """
    if inference is None:
        raise _nobody("This server has no function inference.", "set LAYERSCOPE_INFERENCE_URL where query runs")
    headers = {"content-type": content_type} if body is not None else {}
    try:
        answer = await inference.request(method, path, content=body, headers=headers)
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
