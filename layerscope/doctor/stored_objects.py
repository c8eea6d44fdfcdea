"""`doctor --deep`: every stored object is read, and compared with its digest or its schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layerscope import client, systems
from layerscope.doctor.checks import Check, Finding, Wrong, take
from layerscope.functions.runtime.services import object_store
from layerscope.functions.runtime.settings import ObjectStoreSettings
from layerscope.schemas.errors import Unavailable
from layerscope.stores.inspection import damaged
from layerscope.stores.object_store import ObjectStore
from layerscope.systems import NoSystem, Stack

SHOWN = 20


def examine(at: str | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found; the system is chosen as for the other checks."""
    yield from take([Check("stored objects", lambda: _look(at, environment))])


def _look(at: str | None, environment: Mapping[str, str]) -> str:
    try:
        found = list(damaged(_store(at, environment)))
    except (NoSystem, Unavailable) as error:
        raise Wrong(str(error), "mend what stands above first") from error
    if not found:
        return "each is what its name says"
    lines = [f"{one.bucket}/{one.key} {one.fault}: {one.mended_by}" for one in found[:SHOWN]]
    raise Wrong(f"{len(found)} damaged", "\n".join([*lines, *(["…"] if len(found) > SHOWN else [])]))


def _store(at: str | None, environment: Mapping[str, str]) -> ObjectStore:
    if at is None and environment.get("S3_ENDPOINT") and not environment.get("LAYERSCOPE_URL"):
        return object_store(ObjectStoreSettings.read(environment))
    system = systems.find(at).system
    if isinstance(system, Stack):
        return object_store(ObjectStoreSettings.read(system.administrator_environment()))
    return client.object_store(system)
