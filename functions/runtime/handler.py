"""Event in, product out: the path of every event through a function, and the ASGI shell around it.

The shell covers what a bare server leaves open: a cap on the body, one answer for every request, an error-to-status
table, health that answers while work is under way, and a drain on SIGTERM. It is plain ASGI, so that the same object
runs under `func`, uvicorn, and in one process with the others.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from prometheus_client import Counter

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent, InvalidEventData, compose
from layerscope.functions.runtime.computation import Computation, perform, software, warm
from layerscope.functions.runtime.services import Services, connect
from layerscope.functions.runtime.settings import Settings
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.functions.runtime.worker import Worker
from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of
from layerscope.schemas.errors import Busy, Ignored, InvalidEvent, Refused, Unavailable, WorkFailed
from layerscope.schemas.events import EventData, ProductRefused, ProductWritten
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.product import Product
from layerscope.stores import product_store, uploads
from layerscope.stores.datasets import fetch
from layerscope.stores.product_store import Making

P = ParamSpec("P")
T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STATUSES: Mapping[type[Exception], int] = {
    InvalidCloudEvent: 400,
    InvalidEventData: 422,
    Busy: 429,
    Unavailable: 503,
    WorkFailed: 500,
}
BODY_LIMIT = 1024 * 1024
BODY_SECONDS = 15.0
QUEUE_LIMIT = 256

_log = logging.getLogger(__name__)
_answers = Counter("layerscope_answers", "Events answered, by status", ["function", "status"])
_computations = Counter("layerscope_computations", "Computations that ended, by outcome", ["function", "outcome"])


class EventFunction(ABC):
    """A function that is given events over HTTP and may answer each with one; `respond` is what it does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.services: Services
        self._under_way = 0
        self._draining = False

    @abstractmethod
    async def respond(self, event: CloudEvent) -> CloudEvent | None:
        """Do what the event asks for; None: done, with nothing to tell."""

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> CloudEvent:
        """Return the event of a request.

        Raises:
            InvalidCloudEvent: there is none.
        """
        return http.from_request(headers, body)

    async def start(self, cfg: Mapping[str, str]) -> None:
        """Connect to the services that the environment names."""
        self.attach(connect(Settings.read(cfg)))

    def attach(self, services: Services) -> None:
        """Use these services."""
        self.services = services

    async def stop(self) -> None:
        """Take nothing new, and let what is under way end."""
        self._draining = True
        while self._under_way:
            await asyncio.sleep(0.05)

    def alive(self) -> tuple[bool, str]:
        """Tell that the event loop turns; dependencies are no reason to be restarted."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Tell whether events may be sent."""
        return (False, "draining") if self._draining else (True, "ready")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request: 200 with an event, 204, or an error whose body gives the reason."""
        self._under_way += 1
        try:
            status, headers, body = await self._answer(scope, receive)
        finally:
            self._under_way -= 1
        _answers.labels(self.name, status).inc()
        length = (b"content-length", str(len(body)).encode())
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": [*encoded, length]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, str], bytes]:
        """Be the one error boundary: whatever happens below becomes exactly one status."""
        try:
            if scope["method"] != "POST":
                return _problem(405, "MethodNotAllowed", "events are sent by POST")
            if self._draining or self._under_way > QUEUE_LIMIT:
                raise Busy("this replica is draining" if self._draining else "too many events are under way here")
            event = self.read(scope["headers"], await _body(scope, receive))
            _log.info("received %s of %s, id %s", event.type, event.subject, event.id)
            answer = await self.respond(event)
        except Ignored as reason:
            _log.info("ignored: %s", reason)
            return 204, {}, b""
        except Exception as error:  # noqa: BLE001  the one error boundary
            return _trouble(error)
        if answer is None:
            return 204, {}, b""
        return 200, *http.to_binary(answer)


class WorkingFunction(EventFunction):
    """A function that computes in a worker, started with it and warmed by `warming`; `uploads`: it reads those there."""

    def __init__(self, name: str, warming: Callable[[], None], *, uploads: bool = False) -> None:
        super().__init__(name)
        self._warm = warming
        self._uploads = uploads
        self._worker: Worker
        self._warming: asyncio.Task[None]

    def attach(self, services: Services) -> None:
        """Use these services, and start the worker."""
        super().attach(services)
        self._worker = services.worker_of(uploads=self._uploads)
        self._warming = asyncio.get_running_loop().create_task(self._worker.run(self._warm))

    async def stop(self) -> None:
        """Let what is under way end, then the worker."""
        await super().stop()
        self._warming.cancel()
        self._worker.stop()

    async def compute(self, subject: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the worker, and count how it ended.

        Raises:
            Refused, WorkFailed: as the worker does.
        """
        outcome = "failed"
        try:
            computed = await self._worker.run(call, *args, **kwargs)
            outcome = "complete"
            return computed
        except Refused:
            outcome = "refused"
            raise
        finally:
            _computations.labels(self.name, outcome).inc()
            _log.info("a computation for %s ended: %s", subject, outcome)


class ProductFunction(WorkingFunction):
    """A function that makes one product: `maths` is its `compute`, and everything else is here."""

    def __init__(self, product: type[Product], maths: Callable[..., Product]) -> None:
        super().__init__(product.declared.name, partial(warm, product.declared.reads_model))
        self.product = product
        self.maths = maths
        self._joined: SingleFlight[CloudEvent] = SingleFlight()

    async def respond(self, event: CloudEvent) -> CloudEvent:
        """Make the product of the event's model, unless it is there; answer with what is there now."""
        facts = await asyncio.to_thread(self._facts, event)
        place = f"{facts.identity.subject} {address_of(self.product, facts)}"
        return await self._joined.run(place, lambda: self._make(facts, event))

    async def _make(self, facts: Facts, event: CloudEvent) -> CloudEvent:
        found = await asyncio.to_thread(product_store.manifest, self.services.store, self.product, facts)
        if found is None:
            found = await self._outcome(facts, event)
        return self._told(found, event)

    async def _outcome(self, facts: Facts, event: CloudEvent) -> Manifest:
        """Compute the product and store it; a refusal is stored in its place."""
        store = self.services.store
        making = Making(software=software(), event=event.id, traceparent=event.extensions.get("traceparent"))
        try:
            computation = await asyncio.to_thread(self._computation, facts)
            done = await self.compute(facts.identity.subject, perform, computation)
        except Refused as refused:
            return await asyncio.to_thread(product_store.refuse, store, self.product, facts, refused, making)
        made = Making(making.software, done.device, round(done.seconds, 3), making.event, making.traceparent)
        return await asyncio.to_thread(product_store.write, store, done.product, facts, made)

    def _facts(self, event: CloudEvent) -> Facts:
        """Find out what the event's model is now: an event only says whose product to look at."""
        try:
            identity = Identity.parse(event.subject)
        except ValueError as error:
            raise InvalidEvent(f"the subject is not DATASET/MODEL/VERSION: {error}") from error
        upload = uploads.current(self.services.store, identity)
        if upload is None:
            raise Ignored(f"{event.subject} is gone")
        record = uploads.record(self.services.store, upload)
        if record is None or record.content is None:
            raise Ignored(f"{event.subject} is not admitted")
        return uploads.facts(self.services.store, record)

    def _computation(self, facts: Facts) -> Computation:
        declared, store = self.product.declared, self.services.store
        given: dict[str, Any] = {one.declared.name: self._input(one, facts) for one in declared.inputs}
        if declared.takes_shape:
            given["shape"] = facts.dataset.shape if facts.dataset else None
        if declared.sidecars:
            given["sidecars"] = uploads.sidecars(store, facts, declared.sidecars)
        if declared.parts and facts.dataset is None:
            raise Refused(
                "no-dataset",
                f"There is no dataset {facts.identity.dataset!r}, so this model cannot be run on its images.",
                f"layerscope datasets add {facts.identity.dataset} --test test.npz --classes a,b,c",
            )
        model = None
        if declared.reads_model:
            model = self.services.scratch / "models" / facts.content
            if not model.exists():
                store.download(keys.PRODUCTS, keys.blob(facts.content), model)
        parts = fetch(store, facts.dataset, declared.parts, self.services.scratch / "datasets") if facts.dataset else {}
        return Computation(self.maths, given, model, facts.dataset, parts, self.services.limits.device)

    def _input(self, product: type[Product], facts: Facts) -> Product:
        found = product_store.manifest(self.services.store, product, facts)
        if found is None:
            raise Ignored(f"{product.declared.name} is not there yet; its event will bring this one back")
        if found.state == "refused":
            raise Ignored(f"{product.declared.name} is refused, and so is what stands on it")
        return product_store.load(self.services.store, product, found)

    def _told(self, manifest: Manifest, event: CloudEvent) -> CloudEvent:
        who = manifest.model_dump(include={"dataset", "model", "version", "content", "product", "address"})
        data: EventData
        if manifest.refusal is not None:
            data = ProductRefused(**who, refusal=manifest.refusal)
        else:
            data = ProductWritten(**who, headline=manifest.headline)
        return compose(data, source=f"/functions/{self.name}", subject=manifest.identity.subject, cause=event)


class _BodyRefused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Read the body, refusing early what is announced as too large."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > BODY_LIMIT:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _BodyRefused(400, "the sender went away")
                size += len(message.get("body", b""))
                if size > BODY_LIMIT:
                    raise _too_large()
                chunks.append(message.get("body", b""))
                if not message.get("more_body"):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise _BodyRefused(408, f"the body did not arrive within {BODY_SECONDS:g} s") from error


def _too_large() -> _BodyRefused:
    # Made where it is raised: one kept in a variable there would hold on to that call, and to what it has read.
    return _BodyRefused(413, f"an event has at most {BODY_LIMIT} bytes")


def _trouble(error: Exception) -> tuple[int, dict[str, str], bytes]:
    """Turn an error into its answer; of one that nobody foresaw, only the kind leaves the function."""
    kind = type(error).__name__.lstrip("_")
    if isinstance(error, InvalidEvent | _BodyRefused):
        return _problem(error.status, kind, str(error))
    for expected, status in STATUSES.items():
        if isinstance(error, expected):
            _log.warning("answered %d: %s", status, error)
            return _problem(status, kind, str(error))
    _log.error("a bug, while an event was answered", exc_info=error)
    return _problem(500, kind, f"internal error: {kind}; see the function's log")


def _problem(status: int, kind: str, message: str) -> tuple[int, dict[str, str], bytes]:
    # The genuine dispatcher never commits past an answer with a second hyphen after `kne-`; it keeps 1,024 bytes of body.
    headers = {"content-type": "text/plain; charset=utf-8", "kne-errorclass": kind}
    return status, headers, message.encode()[:1024]
