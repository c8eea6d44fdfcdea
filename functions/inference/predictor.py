"""From a body, or the number of a test image, to an answer: pictures are read in one worker, models run in another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from layerscope.functions.inference.answer import answer_of
from layerscope.functions.inference.call import (
    Call,
    Explained,
    Predicted,
    Ranked,
    perform,
    perform_explanation,
    picture_of,
)
from layerscope.functions.inference.explanation_answer import explanation_of
from layerscope.functions.inference.rejected import Rejected
from layerscope.functions.inference.stored_model import StoredModel, stored_image, stored_model
from layerscope.functions.runtime.computation import warm
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Refused
from layerscope.schemas.explanations import ExplanationAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.inference import PredictionAnswer

if TYPE_CHECKING:
    from layerscope.functions.analysis.pictures.picture import Picture  # Pillow's plugins, which the worker has

M = TypeVar("M", Predicted, Explained)

_READING: Final = ("layerscope.functions.analysis.pictures.picture",)
_RUNNING: Final = ("layerscope.functions.inference.explanation",)
_kept = Gauge("layerscope_models_kept", "Models that the worker of inference has in memory")
_kept_bytes = Gauge("layerscope_models_kept_bytes", "Bytes of their tensors, and of their features of test images")


class Predictor:
    """Two workers over some services; to be made in a running event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reading = services.workers_for("inference", partial(warm, _READING), uploads=True)
        self._running = services.workers_for("inference", partial(warm, _RUNNING))
        loop, early = asyncio.get_running_loop(), services.warms_early
        self._warming = [loop.create_task(one.warm()) for one in (self._reading, self._running) if early]

    def stop(self) -> None:
        """End the workers."""
        for task in self._warming:
            task.cancel()
        self._reading.stop()
        self._running.stop()

    async def answer(self, identity: Identity, body: bytes, content_type: str) -> PredictionAnswer:
        """Return what a model says of the picture in a body.

        Raises:
            Rejected: there is no such model, it cannot be run, or this is no picture for it.
            Unavailable, WorkFailed: as the store and the workers do.
        """
        model = await asyncio.to_thread(_stored, self._services, identity)
        picture = await self._read(body, content_type, model.description.shape)
        made = await self._run(perform, self._call(model, picture.pixels, model.ranked))
        return answer_of(model, picture, made)

    async def explanation(self, identity: Identity, index: int) -> ExplanationAnswer:
        """Return what the answer of a model about a test image stands on.

        Raises:
            Rejected: there is no such model or image, or it cannot be run.
            Unavailable, WorkFailed: as the store and the workers do.
        """
        model = await asyncio.to_thread(_stored, self._services, identity)
        pixels = await asyncio.to_thread(stored_image, self._services, model, index)
        made = await self._run(perform_explanation, self._call(model, pixels, None), index)
        return await asyncio.to_thread(explanation_of, model, index, pixels, made)

    async def _read(self, body: bytes, content_type: str, shape: tuple[int, int, int]) -> Picture:
        try:
            picture: Picture = await self._reading.run(picture_of, body, content_type, shape)
        except Refused as refused:
            raise Rejected.picture(refused) from refused
        return picture

    def _call(self, model: StoredModel, pixels: NDArray[np.uint8], ranked: Ranked | None) -> Call:
        limits = self._services.limits
        return Call(
            content=model.content,
            model=model.file,
            description=model.description,
            test=model.test,
            pixels=pixels,
            ranked=ranked,
            output_kind=model.output_kind,
            device=limits.device,
            budget=limits.inference_mb * 2**20,
        )

    async def _run(self, work: Callable[..., M], *given: Any) -> M:
        try:
            made: M = await self._running.run(work, *given)
        except Refused as refused:
            raise Rejected.model(refused) from refused
        _kept.set(made.kept)
        _kept_bytes.set(made.kept_bytes)
        return made


def _stored(services: Services, identity: Identity) -> StoredModel:
    try:
        return stored_model(services, identity)
    except Refused as refused:
        raise Rejected.model(refused) from refused
