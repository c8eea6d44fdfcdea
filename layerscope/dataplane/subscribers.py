"""The Services as this machine runs them: where a call goes, and how many may be under way at once.

A Service has places for as many calls as its `containerConcurrency`; further calls queue here. A Service without a
process of its own, as those behind the replay Triggers of GPU functions, shares the process of the function that a call
is for, and takes a place in both.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from layerscope.dataplane.resources import Service

logger = logging.getLogger(__name__)

RETRYABLE: Final = frozenset({404, 408, 409, 429})
# Less than the five seconds after which uvicorn and hypercorn close a connection: they would close it under a call.
KEEPALIVE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class SubscriberAnswer:
    """What a subscriber answered; `headers` as they came, names in any case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def accepted(self) -> bool:
        """Return whether the event was taken."""
        return 200 <= self.status < 300

    @property
    def retryable(self) -> bool:
        """Return whether the subscriber may answer otherwise later."""
        return self.status in RETRYABLE or self.status >= 500


class Subscriber:
    """A Service that can be called, at one path."""

    def __init__(
        self, service: Service, client: httpx.AsyncClient, *places: asyncio.Semaphore, path: str = "/"
    ) -> None:
        """Call `service` by `client`, holding one of each of `places` during a call."""
        self.service = service
        self._path = path
        self._client = client
        self._places = places

    @property
    def destination(self) -> str:
        """Return the URL that the cluster knows it by, which is what a dead letter names."""
        return self.service.address + self._path

    async def call(self, headers: Mapping[str, str], body: bytes, timeout_seconds: float) -> SubscriberAnswer | None:
        """Post an event in binary mode, once; None: no answer came, or not in time.

        The time runs from when there is a place. A call that was too slow is given up here and may go on over there.
        """
        async with contextlib.AsyncExitStack() as stack:
            for place in self._places:
                await stack.enter_async_context(place)
            try:
                async with asyncio.timeout(timeout_seconds):
                    response = await self._post([(k.encode(), v.encode()) for k, v in headers.items()], body)
            except (httpx.RequestError, httpx.InvalidURL) as error:
                logger.info("%s did not answer: %r", self.service.name, error)
                return None
            except TimeoutError:
                logger.warning("%s did not answer within %g s", self.service.name, timeout_seconds)
                return None
        return SubscriberAnswer(response.status_code, tuple(response.headers.raw), response.content)

    async def _post(self, headers: list[tuple[bytes, bytes]], body: bytes) -> httpx.Response:
        response = await self._client.post(self._path, headers=headers, content=body, timeout=None)
        if response.status_code == httpx.codes.SEE_OTHER and "location" in response.headers:
            # As Knative's data plane does, the event in the body included; no other redirection is followed.
            where = response.headers["location"]
            response = await self._client.request("GET", where, headers=headers, content=body, timeout=None)
        return response


class Subscribers:
    """The Services that can be called: those with a client, and those whose functions another one runs."""

    def __init__(self, services: Mapping[str, Service], clients: Mapping[str, httpx.AsyncClient]) -> None:
        """Reach `services`, by name, through `clients`, by the name of the Service, with its base URL.

        Raises:
            ValueError: there is no Service of that name.
        """
        if unknown := clients.keys() - services.keys():
            raise ValueError(f"no Service is named {', '.join(sorted(unknown))}")
        self._services = services
        self._clients = clients
        self._places = {name: _places(service) for name, service in services.items()}
        self._process_of = {one: name for name in sorted(clients, reverse=True) for one in services[name].functions}

    def at(self, service: str, path: str) -> Subscriber:
        """Return who answers at a path of a Service.

        Raises:
            ValueError: no client reaches it.
        """
        declared = self._services[service]
        if service in self._clients:
            return Subscriber(declared, self._clients[service], *self._places[service], path=path)
        function = path.strip("/") or declared.functions[0]
        process = self._process_of.get(function)
        if process is None or function not in declared.functions:
            raise ValueError(f"there is no client for {service}")
        places = (*self._places[service], *self._places[process])
        return Subscriber(declared, self._clients[process], *places, path=path)


def _places(service: Service) -> tuple[asyncio.Semaphore, ...]:
    return (asyncio.Semaphore(service.concurrency),) if service.concurrency else ()


def client_at(base_url: str) -> httpx.AsyncClient:
    """Return a client for a function that listens at `base_url`."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_SECONDS)
    return httpx.AsyncClient(base_url=base_url, limits=limits, trust_env=False, verify=_trusted())


@functools.cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the certificates takes longer than the rest of a client


def client_of(app: Any) -> httpx.AsyncClient:
    """Return a client for a function in this process, an ASGI application."""
    return httpx.AsyncClient(base_url="http://in-process", transport=_InProcess(app), timeout=None)


class _InProcess(httpx.AsyncBaseTransport):
    """As over a connection: who stops waiting for an answer does not stop the work."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._calls: set[asyncio.Task[httpx.Response]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = asyncio.ensure_future(self._transport.handle_async_request(request))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def aclose(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
