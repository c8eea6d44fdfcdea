"""What `status`, `doctor` and `datasets list` tell."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, systems
from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.stack import programs
from layerscope.stack.local_stack import is_running
from layerscope.stack.supervisor import read_status
from layerscope.stores import datasets
from layerscope.stores.object_store import ObjectStore
from layerscope.systems import Embedded, Located, NoSystem, Stack

FREE_GB = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and what to do where it is wrong."""

    check: str
    ok: bool
    found: str
    advice: str = ""


async def status_of(system: Located) -> tuple[dict[str, Any], RenderableType]:
    """Return what runs of a system, as data and as a table."""
    told: dict[str, Any] = {"system": str(getattr(system, "url", None) or getattr(system, "directory", ""))}
    shown: list[RenderableType] = [Text(told["system"], style="bold")]
    if isinstance(system, Stack):
        told["running"] = is_running(system.directory)
        status = read_status(system.directory) if told["running"] else None
        table = Table("process", "pid", "ready", "restarts", "since", box=None, header_style="dim")
        for one in status.processes if status else ():
            table.add_row(
                one.name, str(one.pid or ""), "yes" if one.ready else "no", str(one.restarts), one.since or ""
            )
        told["processes"] = [asdict(one) for one in status.processes] if status else []
        shown.append(table if status else Text("not running: `layerscope up` starts it"))
    if told.get("running", True):
        async with client.querying(system) as query:
            page = await client.get(query, "/models", limit=1000)
        states = [line["state"] for line in page["models"]]
        told["models"] = {state: states.count(state) for state in tables_states() if state in states}
        counted = ", ".join(f"{count} {state}" for state, count in told["models"].items())
        shown.append(Text(f"models: {counted or 'none yet'}"))
    return told, Group(*shown)


def tables_states() -> tuple[str, ...]:
    """Return the states in which models can be, the good one first."""
    return ("complete", "computing", "refused", "failed")


async def examine(at: str | None) -> list[Finding]:
    """Check this machine, and the system if there is one."""
    findings = [*_machine(), *_programs()]
    try:
        system = systems.locate(at)
    except NoSystem as error:
        return [*findings, Finding("system", False, "none", str(error))]
    return [*findings, *_object_store(system), await _query(system)]


def datasets_of(store: ObjectStore) -> tuple[list[dict[str, Any]], RenderableType]:
    """Return the datasets of a system, as data and as a table."""
    table = Table("dataset", "classes", "shape", "images", "source", box=None, header_style="dim")
    found = []
    names = {one.key.split("/")[0] for one in store.list(keys.DATASETS) if one.key.endswith("/dataset.json")}
    for name in sorted(names):
        description = datasets.describe(store, name)
        if description is None:
            continue
        found.append(description.model_dump(mode="json"))
        images = ", ".join(f"{part} {one.images}" for part, one in sorted(description.parts.items()))
        shape = "×".join(str(side) for side in description.shape)
        table.add_row(name, str(len(description.classes)), shape, images, description.source)
    return found, table


def _machine() -> list[Finding]:
    free = shutil.disk_usage(".").free / 1e9
    torch = importlib.util.find_spec("torch") is not None
    crc32c = importlib.util.find_spec("crc32c") is not None
    return [
        Finding("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer"),
        Finding("torch", torch, "installed" if torch else "missing", "pip install 'layerscope[compute]'"),
        Finding(
            "crc32c",
            crc32c,
            "installed" if crc32c else "missing",
            "pip install crc32c: Kafka is 18 times slower without",
        ),
        Finding("disk", free > FREE_GB, f"{free:.0f} GB free", f"free some disk: {FREE_GB} GB are needed"),
    ]


def _programs() -> list[Finding]:
    missing = programs.missing_programs()
    advice = "only `layerscope up` needs them; install them with the system's package manager"
    return [
        Finding(
            "programs of the real stack",
            not missing,
            ", ".join(missing) + " missing" if missing else "all there",
            advice,
        )
    ]


def _object_store(system: Located) -> list[Finding]:
    try:
        store = client.object_store(system)
        names = {one.key.split("/")[0] for one in store.list(keys.DATASETS)}
    except (NoSystem, Unavailable) as error:
        return [Finding("object store", False, str(error), "`layerscope status` tells which process is down")]
    return [
        Finding("object store", True, "answers"),
        Finding("dataset digits", "digits" in names, "there" if "digits" in names else "missing", "layerscope init"),
    ]


async def _query(system: Located) -> Finding:
    advice = "`layerscope status` shows which process is down; its log lies in logs/ next to system.json"
    # Health is the server's to tell, and there is none around `query` in this process.
    path = "/models" if isinstance(system, Embedded) else "/health/readiness"
    try:
        async with client.querying(system) as query:
            answer = await query.get(path)
    except httpx.TransportError as error:
        return Finding("query", False, f"no answer: {type(error).__name__}", advice)
    where = "in this process" if isinstance(system, Embedded) else str(query.base_url)
    return Finding("query", answer.is_success, f"{where} answers {answer.status_code}", advice)
