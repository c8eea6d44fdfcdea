"""From a body to an answer: the picture is read in one worker, and the model runs in another."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import Gauge

from layerscope.functions.inference.answer import answer_of
from layerscope.functions.inference.call import Call, Predicted, perform, picture_of
from layerscope.functions.inference.rejected import Rejected
from layerscope.functions.inference.stored_model import StoredModel, stored_model
from layerscope.functions.runtime.computation import warm
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import Identity
from layerscope.schemas.inference import PredictionAnswer

if TYPE_CHECKING:
    from layerscope.functions.analysis.pictures.picture import Picture  # Pillow's plugins, which the worker has

_READING: Final = ("layerscope.functions.analysis.pictures.picture",)
_RUNNING: Final = ("layerscope.functions.inference.prediction",)
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
        made = await self._run(model, picture)
        _kept.set(made.kept)
        _kept_bytes.set(made.kept_bytes)
        return answer_of(model, picture, made)

    async def _read(self, body: bytes, content_type: str, shape: tuple[int, int, int]) -> Picture:
        try:
            picture: Picture = await self._reading.run(picture_of, body, content_type, shape)
        except Refused as refused:
            raise Rejected.picture(refused) from refused
        return picture

    async def _run(self, model: StoredModel, picture: Picture) -> Predicted:
        limits = self._services.limits
        call = Call(
            content=model.content,
            model=model.file,
            description=model.description,
            test=model.test,
            pixels=picture.pixels,
            ranked=model.ranked,
            output_kind=model.output_kind,
            device=limits.device,
            budget=limits.inference_mb * 2**20,
        )
        try:
            return await self._running.run(perform, call)
        except Refused as refused:
            raise Rejected.model(refused) from refused


def _stored(services: Services, identity: Identity) -> StoredModel:
    try:
        return stored_model(services, identity)
    except Refused as refused:
        raise Rejected.model(refused) from refused
