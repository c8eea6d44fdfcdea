"""Which checks a system is given: one that the environment names, as in a pod, or one on this machine or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import httpx

from layerscope import client, systems
from layerscope.doctor import machine
from layerscope.doctor.checks import Check, Finding, Wrong, take
from layerscope.doctor.services import Examined
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas import keys
from layerscope.schemas.errors import LayerscopeError, Unavailable
from layerscope.systems import Embedded, Located, NoSystem, Stack


def examine(
    at: str | None, environment: Mapping[str, str], say: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield what is found, in the order in which to mend it.

    Without `at`, an environment that names an object store and no system (LAYERSCOPE_URL) is what is examined, as
    `init` would use it: so in a pod. Otherwise it is this machine, and the system that `systems.find` finds. `say` gets
    a line about which it is.
    """
    if at is None and environment.get("S3_ENDPOINT") and not environment.get("LAYERSCOPE_URL"):
        say(f"system: {environment['S3_ENDPOINT']} and what else the environment names")
        yield from _services(environment, _query_in_cluster(environment))
        return
    yield from take(machine.checks())
    try:
        found = systems.find(at)
    except NoSystem as error:
        yield Finding("system", False, "none", str(error))
        return
    say(found.sentence)
    system = found.system
    if isinstance(system, Stack):
        yield from _services(system.administrator_environment(), system.url)
    else:
        yield from take(_of(system))


def _services(environment: Mapping[str, str], query: str | None) -> Iterator[Finding]:
    try:
        examined = Examined(Settings.read(environment), query)
    except (LayerscopeError, ValueError) as error:
        yield Finding("settings", False, str(error), "docs/settings.md lists them, with what each may be")
        return
    yield from take([Check("settings", lambda: "can be used"), *examined.checks()])


def _query_in_cluster(environment: Mapping[str, str]) -> str | None:
    if not environment.get("KUBERNETES_SERVICE_HOST"):
        return None
    return f"http://query.{environment.get('LAYERSCOPE_NAMESPACE') or 'layerscope'}.svc.cluster.local"


def _of(system: Located) -> list[Check]:
    """Return the checks of a directory, or of a system elsewhere, of which only the store and `query` are known."""
    return [
        Check("object store", lambda: _store(system)),
        Check("dataset digits", lambda: _digits(system), needs=("object store",)),
        Check("query", lambda: asyncio.run(_query(system))),
    ]


def _store(system: Located) -> str:
    try:
        next(client.object_store(system).list(keys.DATASETS), None)
    except (NoSystem, Unavailable) as error:
        raise Wrong(str(error), "S3_ENDPOINT and its keys, or --at DIR") from error
    return "answers"


def _digits(system: Located) -> str:
    if not any(True for _ in client.object_store(system).list(keys.DATASETS, "digits/")):
        raise Wrong("missing", "layerscope init")
    return "there"


async def _query(system: Located) -> str:
    # Health is the server's to answer, and there is none around `query` in this process.
    where, path = ("in this process", "/models") if isinstance(system, Embedded) else (system.url, "/health/readiness")
    try:
        async with client.querying(system) as query:
            answer = await query.get(path)
    except httpx.TransportError as error:
        raise Wrong(f"no answer: {type(error).__name__}", "`layerscope status` shows more") from error
    if not answer.is_success:
        raise Wrong(f"{where} answers {answer.status_code}", "see its log")
    return f"{where} answers {answer.status_code}"
