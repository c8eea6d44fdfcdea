"""What `datasets list` tells."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table

from layerscope.stores import datasets
from layerscope.stores.dataset_names import dataset_names
from layerscope.stores.object_store import ObjectStore


def datasets_of(store: ObjectStore) -> tuple[list[dict[str, Any]], RenderableType]:
    """Return the datasets of a system, as data and as a table."""
    table = Table("dataset", "classes", "shape", "images", "source", box=None, header_style="dim")
    found = []
    for name in dataset_names(store):
        description = datasets.describe(store, name)
        if description is None:
            continue
        found.append(description.model_dump(mode="json"))
        parts = sorted(description.parts.items())
        parts += [("common", description.common)] if description.common else []
        images = ", ".join(f"{part} {one.images}" for part, one in parts)
        shape = "×".join(str(side) for side in description.shape)
        table.add_row(name, str(len(description.classes)), shape, images, description.source)
    return found, table
