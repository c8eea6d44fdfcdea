"""What `status` and `datasets list` tell."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client
from layerscope.schemas import keys
from layerscope.stack.local_stack import is_running
from layerscope.stack.process_table import process_table
from layerscope.stack.supervisor import read_status
from layerscope.stores import datasets
from layerscope.stores.object_store import ObjectStore
from layerscope.systems import Located, NoSystem, Stack


async def status_of(system: Located) -> tuple[dict[str, Any], RenderableType]:
    """Return what runs of a system, as data and as a table."""
    told: dict[str, Any] = {"system": str(getattr(system, "url", None) or getattr(system, "directory", ""))}
    shown: list[RenderableType] = [Text(told["system"], style="bold")]
    if isinstance(system, Stack):
        told["running"] = is_running(system.directory)
        status = read_status(system.directory) if told["running"] else None
        told["processes"] = [asdict(one) for one in status.processes] if status else []
        shown.append(process_table(status.processes) if status else Text("not running: `layerscope up` starts it"))
    if told.get("running", True):
        try:
            async with client.querying(system) as query:
                page = await client.get(query, "/models", limit=1000)
        except NoSystem as error:
            if not isinstance(system, Stack):
                raise
            shown.append(Text(str(error)))  # it starts, or stands still: the table says which
            return told, Group(*shown)
        states = [line["state"] for line in page["models"]]
        told["models"] = {state: states.count(state) for state in tables_states() if state in states}
        counted = ", ".join(f"{count} {state}" for state, count in told["models"].items())
        shown.append(Text(f"models: {counted or 'none yet'}"))
    return told, Group(*shown)


def tables_states() -> tuple[str, ...]:
    """Return the states in which models can be, the good one first."""
    return ("complete", "computing", "refused", "failed")


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
