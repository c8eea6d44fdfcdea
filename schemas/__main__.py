"""`python -m layerscope.schemas` writes the JSON Schemas of all that is said; `--check` names those that differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from layerscope.schemas import alike, classes, depths, layers, operations, queries
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.events import declared_events, schema_name
from layerscope.schemas.history import History
from layerscope.schemas.manifests import Failure, Manifest, RefusedKey, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.replays import DeadLetterRecord, Discarded, Ending, Progress, Run

FOLDER = Path(__file__).parent / "json"


def documents() -> dict[str, dict[str, Any]]:
    """Return every JSON Schema by its file name."""
    stored: tuple[type[BaseModel], ...] = (DatasetDescription, History, UploadRecord, RefusedKey, Manifest, Failure)
    stored += (Run, Progress, Ending, DeadLetterRecord, Discarded)
    named = {
        **vars(queries),
        **vars(alike),
        **vars(classes),
        **vars(depths),
        **vars(layers),
        **vars(operations),
    }.values()
    answers = [one for one in named if isinstance(one, type) and issubclass(one, queries.Answer)]
    schemas = {
        **{f"events/{schema_name(one)}.json": one.model_json_schema() for one in declared_events()},
        **{f"products/{one.declared.name}.json": one.data_schema() for one in declared_products()},
        **{f"stored/{one.__name__}.json": one.model_json_schema() for one in stored},
        **{f"queries/{one.__name__}.json": one.model_json_schema() for one in answers if one is not queries.Answer},
    }
    return {name: {"$id": f"urn:layerscope:schemas:{name}", **schema} for name, schema in schemas.items()}


def main() -> None:
    """Write the schemas, or check them."""
    wanted = {
        FOLDER / name: json.dumps(schema, indent=1, sort_keys=True) + "\n" for name, schema in documents().items()
    }
    present = {path: path.read_text() for path in FOLDER.rglob("*.json")}
    differing = sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))
    if "--check" in sys.argv[1:]:
        if differing:
            names = ", ".join(str(path.relative_to(FOLDER)) for path in differing)
            sys.exit(f"these JSON Schemas are not what the code says: {names}; `make schemas` writes them")
        return
    for path in differing:
        if path not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
