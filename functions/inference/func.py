"""Inference: a picture and the name of a stored model, asked over HTTP; the answer is its class, and why.

    body ─▶ reading worker (confined: no network, no GPU) ─ pixels ─▶ running worker (models kept in memory) ─▶ answer
    number of a test image ─▶ store ─ pixels ─────────────────────────▶

Pictures are uploads, and decoded where uploads are. What runs models is as in every function that does: it is given the
safe form, and may have a GPU; a picture that ends the reading worker costs no model.
"""

from __future__ import annotations

import logging
from typing import Final

from prometheus_client import Counter

from layerscope.functions.inference.predictor import Predictor
from layerscope.functions.inference.rejected import Rejected
from layerscope.functions.inference.stored_model import question
from layerscope.functions.runtime.asgi import Receive, Scope, Send
from layerscope.functions.runtime.asked import AskedFunction
from layerscope.functions.runtime.circumstances import shortage
from layerscope.functions.runtime.request_body import read_body
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.errors import Busy, EventError
from layerscope.schemas.explanations import ExplanationAnswer
from layerscope.schemas.inference import PICTURE_BYTES, PredictionAnswer

MOST_AT_ONCE: Final = 32

_log = logging.getLogger(__name__)
_answers = Counter("layerscope_predictions", "Pictures that were answered, by status", ["status"])


class InferenceFunction(AskedFunction):
    """Answers pictures, one at a time on the function's two workers."""

    def __init__(self) -> None:
        super().__init__("inference")
        self._predictor: Predictor | None = None

    def begin(self, settings: Settings) -> None:
        """Use the services of these settings; they connect when they are first used."""
        self.attach(self.connect(settings))

    def attach(self, services: Services) -> None:
        """Use these services, and start the workers."""
        self._predictor = Predictor(services)

    def end(self) -> None:
        """End the workers."""
        if self._predictor is not None:
            self._predictor.stop()

    @property
    def attached(self) -> bool:
        """Tell whether there are workers."""
        return self._predictor is not None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        status, body = await self._answer(scope, receive)
        _answers.labels(status).inc()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        headers.append((b"content-length", str(len(body)).encode()))
        if status in (408, 413):
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        """Be the one error boundary: whatever happens below becomes exactly one status."""
        try:
            return 200, (await self._answered(scope, receive)).model_dump_json().encode()
        except Rejected as error:
            rejected = error
        except EventError as error:
            rejected = Rejected.circumstance(error)
        except Exception as error:  # noqa: BLE001  the one error boundary
            short = shortage(error)
            if short is None:
                _log.error("a bug, while a picture was answered", exc_info=error)
            rejected = Rejected.circumstance(short) if short else Rejected.bug()
        _log.info("answered %d: %s", rejected.status, rejected)
        return rejected.status, rejected.answer.model_dump_json().encode()

    async def _answered(self, scope: Scope, receive: Receive) -> PredictionAnswer | ExplanationAnswer:
        asked = question(scope["path"])
        if asked.index is None and scope["method"] != "POST":
            raise Rejected(405, "not-a-post", "A picture is sent by POST.", "curl --data-binary @picture.png")
        if asked.index is not None and scope["method"] != "GET":
            raise Rejected(405, "not-a-get", "A test image is asked about by GET.", "curl, without a body")
        if self._predictor is None or self.draining or self.under_way > MOST_AT_ONCE:
            raise Busy(f"this replica is {self.ready()[1]}, with {self.under_way} pictures in progress")
        if asked.index is not None:
            return await self._predictor.explanation(asked.identity, asked.index)
        body = await read_body(scope["headers"], receive, PICTURE_BYTES, "a picture")
        content_type = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        return await self._predictor.answer(asked.identity, body, content_type)


def new() -> InferenceFunction:
    """Return the function, as `func` expects it."""
    return InferenceFunction()
