"""The path of an event through a function: find the facts, look for what is there, compute, store, answer.

    EventFunction (`asgi`) ─ a request's event ─▶ respond ─ an event, or none ─▶ the answer

`ProductFunction` is the path that every product takes; `WorkingFunction` is what computes in a worker at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from layerscope.events.cloudevent import CloudEvent, InvalidEventData, compose, read
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.attempts import Attempts
from layerscope.functions.runtime.circuit import Circuit
from layerscope.functions.runtime.computation import Computed, gather, perform, software, warm
from layerscope.functions.runtime.outcomes import count
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.functions.runtime.worker_pool import Share
from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of, manifest_key
from layerscope.schemas.errors import Ignored, Refused, Unavailable, WorkFailed
from layerscope.schemas.events import ProductRequested, of_outcome
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.product import Product
from layerscope.stores import blobs, product_store, uploads
from layerscope.stores.product_store import Making

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class WorkingFunction(EventFunction):
    """A function that computes in a worker, warmed by `warming`; `uploads`: it reads those there."""

    def __init__(self, name: str, warming: Callable[[], None], *, uploads: bool = False) -> None:
        super().__init__(name)
        self._warm = warming
        self._uploads = uploads
        self.circuit: Circuit = Circuit(name)
        self._attempts: Attempts
        self._worker: Share
        self._warming: asyncio.Task[None] | None = None

    def attach(self, services: Services) -> None:
        """Use these services, and start the worker, unless functions share what the machine has."""
        super().attach(services)
        self._attempts = Attempts(services.scratch / "attempts" / self.name)
        self._worker = services.workers_for(self.name, self._warm, uploads=self._uploads)
        if services.warms_early:
            self._warming = asyncio.get_running_loop().create_task(self._worker.warm())

    def stop(self) -> None:
        """Take nothing new, and end the worker."""
        super().stop()
        if self._warming is not None:
            self._warming.cancel()
        self._worker.stop()

    async def compute(self, subject: str, work: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the worker, and log how it ended; `work` names what is made, for counting attempts at it.

        Raises:
            Refused, WorkFailed, Unavailable: as the worker does.
            SetAside: attempts at this work came to no end, too often.
        """
        outcome = "failed"
        try:
            computed = await self._worker.attempt(self._attempts.one(work), call, *args, **kwargs)
            outcome = "complete"
            return computed
        except Refused:
            outcome = "refused"
            raise
        except Unavailable:
            outcome = "interrupted"
            raise
        finally:
            _log.info("a computation of %s for %s ended: %s", self.name, subject, outcome)


class ProductFunction(WorkingFunction):
    """A function that makes one product: `maths` is its `compute`, and everything else is here.

    `imports` names modules that `maths` imports when it runs, and that take long: the worker starts with them.
    """

    def __init__(self, product: type[Product], maths: Callable[..., Product], imports: tuple[str, ...] = ()) -> None:
        torch = ("layerscope.models.safe_form",) if product.declared.reads_model else ()
        super().__init__(product.declared.name, partial(warm, (*torch, *imports)))
        self.product = product
        self.maths = maths
        self._joined: SingleFlight[CloudEvent] = SingleFlight()

    async def respond(self, event: CloudEvent) -> CloudEvent | None:
        """Make the product of the event's model, unless it is there; answer with what is there now.

        What is made once more for a run of replay lies next to what stands, and is no event.
        """
        facts = await asyncio.to_thread(self._facts, event)
        if (beside := _run_beside(event)) is not None:
            await self._make_beside(facts, event, beside)
            return None
        place = f"{facts.identity.subject} {address_of(self.product, facts)}"
        return await self._joined.run(place, lambda: self._make(facts, event))

    async def _make(self, facts: Facts, event: CloudEvent) -> CloudEvent:
        found = await asyncio.to_thread(product_store.manifest, self.services.store, self.product, facts)
        if found is not None and not (event.type == ProductRequested.type and await self._lost(found)):
            count(self.name, "already_there")
        else:
            with self.circuit.trying(facts.identity.subject):
                found = await self._outcome(facts, event)
            count(self.name, "refused" if found.refusal else "computed")
        return self._answer_with(found, event)

    async def _make_beside(self, facts: Facts, event: CloudEvent, run: str) -> None:
        if await asyncio.to_thread(product_store.manifest, self.services.store, self.product, facts, run) is not None:
            count(self.name, "already_there")
            return
        with self.circuit.trying(facts.identity.subject):
            made = await self._outcome(facts, event, run)
        count(self.name, "refused" if made.refusal else "computed")

    async def _lost(self, found: Manifest) -> bool:
        """Tell whether files of a product are not there: looked at when somebody asks for what is said to be complete."""
        return not await asyncio.to_thread(blobs.are_stored, self.services.store, found.files)

    async def _outcome(self, facts: Facts, event: CloudEvent, beside: str | None = None) -> Manifest:
        """Compute the product and store it, for a run `beside` what stands; a refusal is stored in its place."""
        store = self.services.store
        making = Making(software=software(), event=event.id, traceparent=event.extensions.get("traceparent"))
        try:
            computation = await asyncio.to_thread(gather, self.product, self.maths, facts, self.services, beside)
            key = manifest_key(self.product, facts)
            work = keys.beside(beside, key) if beside else key
            done = await self.compute(facts.identity.subject, work, perform, computation)
            if not isinstance(done, Computed) or type(done.product) is not self.product:
                raise WorkFailed(f"the computing process answered with what is no {self.name}")
        except Refused as refused:
            return await asyncio.to_thread(product_store.refuse, store, self.product, facts, refused, making, beside)
        made = Making(making.software, done.device, round(done.seconds, 3), making.event, making.traceparent)
        return await asyncio.to_thread(product_store.write, store, done.product, facts, made, beside)

    def _facts(self, event: CloudEvent) -> Facts:
        """Find out what the event's model is now: an event only says whose product to look at."""
        try:
            identity = Identity.parse(event.subject)
        except ValueError as error:
            raise InvalidEventData(f"the subject is not DATASET/MODEL/VERSION: {error}") from error
        upload = uploads.current(self.services.store, identity)
        if upload is None:
            raise Ignored(f"{event.subject} is gone")
        record = uploads.record(self.services.store, upload)
        if record is None or record.content is None:
            raise Ignored(f"{event.subject} is not admitted")
        return uploads.facts(self.services.store, record)

    def _answer_with(self, manifest: Manifest, event: CloudEvent) -> CloudEvent:
        return compose(
            of_outcome(manifest), source=f"/functions/{self.name}", subject=manifest.identity.subject, cause=event
        )


def _run_beside(event: CloudEvent) -> str | None:
    """Return the run for which an event asks that a product be made once more; None: it asks for no such thing."""
    return read(event, ProductRequested).beside if event.type == ProductRequested.type else None
