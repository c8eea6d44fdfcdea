"""How commands reach a system: its object store, and `query` over HTTP, wherever the system runs.

What runs a system without servers, and what speaks S3, is imported where it is needed: most commands ask over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import httpx

from layerscope.events.loopback import is_loopback
from layerscope.schemas import keys
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import ErrorAnswer, ModelAnswer
from layerscope.systems import Embedded, Located, NoSystem, Remote, Stack

if TYPE_CHECKING:
    from layerscope.stores.object_store import ObjectStore

T = TypeVar("T")
Say = Callable[[str], None]
POLL_SECONDS: Final = 0.5


class QueryFailed(LayerscopeError):
    """`query` answered with an error; the message is its own."""

    def __init__(self, status: int, error: ErrorAnswer) -> None:
        super().__init__(f"{error.message} {error.hint}".strip())
        self.status = status
        self.error = error


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end, also where an event loop is running already, as in a notebook's cells."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(asyncio.run, work).result()


def object_store(system: Located) -> ObjectStore:
    """Return the system's object store.

    Raises:
        NoSystem: the system is elsewhere, and the environment does not say where its object store is.
    """
    from layerscope.functions.runtime.services import object_store as connected
    from layerscope.functions.runtime.settings import InvalidSettings, ObjectStoreSettings
    from layerscope.stores.directory_store import DirectoryStore

    match system:
        case Embedded(directory):
            return DirectoryStore(directory)
        case Stack():
            environment: Mapping[str, str] = system.client_environment()
        case Remote():
            environment = os.environ
    try:
        return connected(ObjectStoreSettings.read(environment))
    except InvalidSettings as error:
        raise NoSystem(f"{error}; S3_ENDPOINT and its keys say where uploads to {system.url} go") from None


@asynccontextmanager
async def querying(system: Located) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of the system's `query`."""
    if isinstance(system, Embedded):
        from layerscope import embedded

        async with embedded.reading(system.directory) as client:
            yield client
    else:
        key = os.environ.get("LAYERSCOPE_OPERATOR_KEY") or os.environ.get("LAYERSCOPE_API_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        direct = is_loopback(system.url)  # a proxy that the environment names leads to other machines
        async with httpx.AsyncClient(base_url=system.url, timeout=60, headers=headers, trust_env=not direct) as client:
            yield client


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    """Return the JSON at a path.

    Raises:
        QueryFailed: the answer is an error.
        NoSystem: nobody answers.
    """
    return (await _answered(client, "GET", path, parameters)).json()


async def fetch(client: httpx.AsyncClient, path: str, **parameters: Any) -> bytes:
    """Return the bytes at a path; raises as `get` does."""
    return (await _answered(client, "GET", path, parameters)).content


async def post(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    """Have something done, and return the JSON that is answered; raises as `get` does."""
    return (await _answered(client, "POST", path, parameters)).json()


async def send(client: httpx.AsyncClient, path: str, content: bytes) -> Any:
    """Post bytes, and return the JSON that is answered; raises as `get` does."""
    return (await _answered(client, "POST", path, {}, content)).json()


async def _answered(
    client: httpx.AsyncClient, method: str, path: str, parameters: Mapping[str, Any], content: bytes | None = None
) -> httpx.Response:
    asked = {name: value for name, value in parameters.items() if value is not None}
    try:
        answer = await client.request(method, path, params=asked, content=content)
    except httpx.TransportError as error:
        raise NoSystem(
            f"nobody answers at {client.base_url}: {type(error).__name__}; `layerscope status` tells more"
        ) from error
    if answer.is_success:
        return answer
    try:
        raise QueryFailed(answer.status_code, ErrorAnswer.model_validate_json(answer.content))
    except ValueError:
        unexpected = ErrorAnswer(code="unexpected", message=f"{path} answered {answer.status_code}")
        raise QueryFailed(answer.status_code, unexpected) from None


def model_path(identity: Identity, *rest: str) -> str:
    """Return the path of a model version, or of something below it."""
    return "/".join(["/models", identity.subject, *(quote(part, safe="") for part in rest)])


async def upload(
    system: Located,
    identity: Identity,
    content: bytes | Path,
    extension: str,
    say: Say,
    *,
    sidecars: Mapping[str, bytes] | None = None,
) -> None:
    """Put a model under its name; a directory's functions run until nothing is missing.

    Args:
        sidecars: the files that go with it: how the key ends, and the content.
    """
    # Sidecars come first: afterwards the model would be read once more.
    objects: list[tuple[str, bytes | Path]] = [
        (keys.sidecar(identity, end), one) for end, one in (sidecars or {}).items()
    ]
    objects.append((keys.upload(identity, extension), content))
    if isinstance(system, Embedded):
        from layerscope import embedded

        async with embedded.running(system.directory, say) as running:
            for one in objects:
                await running.put(*one)
            await running.settle()
    else:
        store = object_store(system)
        for one in objects:
            await asyncio.to_thread(store.put, keys.MODELS, *one)


async def settle(system: Embedded, say: Say) -> None:
    """Run the functions of a directory until nothing is missing."""
    from layerscope import embedded

    async with embedded.running(system.directory, say) as running:
        await running.settle()


async def outcome(client: httpx.AsyncClient, identity: Identity, seconds: float, say: Say) -> ModelAnswer:
    """Wait until nothing of a model is computing any more, telling of each product as it comes.

    Raises:
        TimeoutError: it still was after `seconds`.
    """
    deadline, printed = time.monotonic() + seconds, set[str]()
    while True:
        try:
            answer = ModelAnswer.model_validate(await get(client, model_path(identity)))
        except QueryFailed as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
        else:
            for name, product in answer.products.items():
                if product.state != "computing" and name not in printed:
                    printed.add(name)
                    say(f"{name}: {product.state}")
            if answer.state != "computing":
                return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{identity.subject} is not complete after {seconds:g} s; `layerscope show` tells more")
        await asyncio.sleep(POLL_SECONDS)
