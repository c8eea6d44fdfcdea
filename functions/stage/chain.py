"""One request through a stage and on: the stage's tensors are there or are brought, it runs, and the next one is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import httpx
from prometheus_client import Gauge

from layerscope.functions.runtime.computation import warm
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.shared_buffers import Uncopied, arrived
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.functions.stage.answers import Passed
from layerscope.functions.stage.call import Mismatch, Part, StageCall, StageResult, perform
from layerscope.functions.stage.hop import PASSED_ON, Late, Replicas
from layerscope.functions.stage.messages import (
    MOST_BYTES,
    NotUnderstood,
    Spent,
    StageRequest,
    Tensors,
    read_answer,
    write_answer,
    write_request,
)
from layerscope.functions.stage.micro_batches import divided, joined, spent_by
from layerscope.functions.stage.weights import StageFiles, stage_file
from layerscope.schemas.errors import Refused, Unavailable
from layerscope.stores import blobs
from layerscope.stores.blobs import Damaged

P = ParamSpec("P")
T = TypeVar("T")

_WARM = ("layerscope.functions.stage.running",)
_kept = Gauge("layerscope_stages_kept", "Stages that the worker has in memory")
_kept_bytes = Gauge("layerscope_stages_kept_bytes", "Bytes of their tensors")


class Chain:
    """A worker for stages, and the way to the stages behind; to be made in a running event loop."""

    def __init__(self, services: Services, addresses: tuple[tuple[str, ...], ...]) -> None:
        self._services = services
        self._worker = services.workers_for("stage", partial(warm, _WARM))
        self._files = StageFiles(services.scratch / "stages", services.limits.inference_mb * 2**20)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=60)
        self._client = httpx.AsyncClient(trust_env=False, limits=limits)
        self._stages = tuple(map(self.replicas, addresses)) if any(addresses) else ()
        self._bringing: SingleFlight[Path] = SingleFlight()
        loop = asyncio.get_running_loop()
        self._warming = loop.create_task(self._worker.warm()) if services.warms_early else None

    def stop(self) -> None:
        """End the worker, and let go of connections."""
        if self._warming is not None:
            self._warming.cancel()
        self._worker.stop()
        self._closing = asyncio.get_running_loop().create_task(self._client.aclose())

    def replicas(self, addresses: Sequence[str]) -> Replicas:
        """Return what asks the replicas at these addresses."""
        return Replicas(addresses, self._client)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the worker; it raises what `Share.run` does."""
        return await self._worker.run(function, *args, **kwargs)

    async def answer(
        self, request: StageRequest, until: float, behind: Replicas | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of the answer to a request whose caller waits until then, by the monotonic clock.

        Args:
            request: for one stage.
            until: when its caller waits no longer.
            behind: who is asked for the next stage; None: whom this chain knows.

        Raises:
            Refused: as of `running.perform`, and of `micro_batches`.
            NotUnderstood: as of `micro_batches.divided`.
            Late: the time was over first.
            Passed: the next stage answers with no outputs.
            Unavailable, WorkFailed: as the store and the worker do; or there is no next stage to ask.
        """
        if request.micro_batch:
            return write_answer(request, *await self._in_parts(request, until, behind))
        return write_answer(request, *await self._computed(request, until, behind))

    async def _in_parts(self, request: StageRequest, until: float, behind: Replicas | None) -> tuple[Tensors, Spent]:
        """Compute one part while the stages behind compute others: as many under way as there are stages, and one more."""
        under_way = asyncio.Semaphore(len(request.cuts) + 2)
        stopped = asyncio.Event()

        async def part(inputs: Tensors) -> tuple[Tensors, Spent] | None:
            async with under_way:
                if stopped.is_set():
                    return None
                with ExitStack() as failing:
                    failing.callback(stopped.set)
                    found = await self._computed(replace(request, inputs=inputs, micro_batch=0), until, behind)
                    failing.pop_all()
                    return found

        parts = divided(request.inputs, request.micro_batch)
        # Not cancelled where one fails: that would end the worker, which computes for others too.
        made = await asyncio.gather(*map(part, parts), return_exceptions=True)
        for fault in made:
            if isinstance(fault, BaseException):
                raise fault
        found = [one for one in made if isinstance(one, tuple)]
        return joined([outputs for outputs, _ in found]), spent_by([spent for _, spent in found])

    async def _computed(self, request: StageRequest, until: float, behind: Replicas | None) -> tuple[Tensors, Spent]:
        made = await self._run(request, until)
        tensors = Tensors(made.entries, tuple(memoryview(arrived(one)) for one in made.contents))
        spent = Spent((made.seconds,), (tensors.bytes,))
        if request.is_last:
            return tensors, spent
        outputs, others = await self._next(request, tensors, until, behind)
        return outputs, spent.before(others)

    async def _run(self, request: StageRequest, until: float) -> StageResult:
        part, limits = request.part, self._services.limits
        file = await self._bringing.run(part.key, lambda: self._bring(part, request.tensors))
        call = StageCall(
            file=file,
            part=part,
            entries=request.inputs.entries,
            contents=tuple(map(Uncopied, request.inputs.contents)),
            device=limits.device,
            budget=limits.inference_mb * 2**20,
        )
        try:
            made = await self._worker.attempt(_in_time(until), perform, call)
        except Mismatch as error:
            file.unlink(missing_ok=True)
            await asyncio.to_thread(blobs.set_aside, self._services.store, part.content)
            raise Unavailable(str(error)) from error
        _kept.set(made.kept)
        _kept_bytes.set(made.kept_bytes)
        return made

    async def _bring(self, part: Part, sketch: str) -> Path:
        try:
            return await stage_file(self._services, self._worker, self._files, part, sketch)
        except Damaged as damaged:
            await asyncio.to_thread(blobs.set_aside, self._services.store, damaged.sha256)
            raise Unavailable(f"{damaged}; they are made again") from damaged

    async def _next(
        self, request: StageRequest, tensors: Tensors, until: float, behind: Replicas | None
    ) -> tuple[Tensors, Spent]:
        """Ask the stage behind this one; of fewer groups of addresses than stages, the last is asked for all others."""
        number = request.number + 1
        if behind is None and not self._stages:
            raise Unavailable("LAYERSCOPE_STAGE_URLS does not say where the next stage is")
        replicas = behind or self._stages[min(number, len(self._stages) - 1)]
        path, headers, body = write_request(request, number, tensors)
        if len(body) > MOST_BYTES:
            raise Refused(
                "too-many-bytes",
                f"{len(body):,} bytes would cross to stage {number}; {MOST_BYTES:,} are the most.",
                "send fewer images at once, or cut where fewer bytes cross",
            )
        answer = await replicas.send(path, headers, body, until - time.monotonic())
        if answer.status_code != 200:
            raise _error(number, answer)
        try:
            return read_answer(answer.headers, memoryview(answer.content))
        except NotUnderstood as error:
            raise Unavailable(f"stage {number} answered what cannot be read: {error}") from error


@contextmanager
def _in_time(until: float) -> Iterator[None]:
    """Begin a computation only for a caller who still waits."""
    if time.monotonic() >= until:
        raise Late("the caller's time was over before this stage began")
    yield


def _error(number: int, answer: httpx.Response) -> Exception:
    """Return what the answer of a stage behind this one means for who asked this one."""
    try:
        said = answer.json()
        message, code, hint = str(said["error"]), str(said.get("code", "")), str(said.get("hint", ""))
    except (ValueError, LookupError, TypeError):
        message, code, hint = f"status {answer.status_code}", "", ""
    if answer.status_code == 504:
        return Late(message)
    told = message if PASSED_ON in answer.headers else f"stage {number}: {message}"
    return Passed(503 if answer.status_code >= 500 else answer.status_code, told, code, hint)
