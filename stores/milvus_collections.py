"""The collections of a Milvus: made where they are missing, and of several builds of the index the one that is read.

A build is the whole index, catalogue and layers, in collections whose names end alike. The alias `PRESENT` stands on the
catalogue of the one that is read, so that all of them are switched at once. Without the alias the names have no ending.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from layerscope.schemas.vector_index import VectorIndex
from layerscope.stores import milvus_entities as written
from layerscope.stores.index_rows import CATALOGUE, COLLECTION

if TYPE_CHECKING:
    from pymilvus import MilvusClient

READ_SECONDS: Final = 5.0
WRITE_SECONDS: Final = 30.0
PRESENT: Final = f"{CATALOGUE}_present"
BUILD: Final = re.compile(rf"({CATALOGUE}|{COLLECTION.pattern})(?P<build>_b[0-9a-f]{{8}})?")
NO_ALIAS: Final = (100, 1_600)
"""What Milvus Lite and a server say of an alias that is not there."""


MADE_WITH: Final[Mapping[VectorIndex, Mapping[str, int]]] = {
    "FLAT": {},
    "HNSW": {"M": 32, "efConstruction": 256},
    "IVF_FLAT": {"nlist": 128},
}


def search_effort(limit: int) -> dict[str, int]:
    """Return how much is looked at for `limit` rows, whatever index a collection was made with."""
    return {"ef": max(256, 2 * limit), "nprobe": 32}


def present_build(client: MilvusClient) -> str:
    """Return how the names of the collections that are read end."""
    from pymilvus import MilvusException

    try:
        found = client.describe_alias(PRESENT, timeout=READ_SECONDS)
    except MilvusException as error:
        if error.code not in NO_ALIAS:
            raise
        return ""
    return str(found["collection_name"]).removeprefix(CATALOGUE)


def builds(client: MilvusClient) -> dict[str, list[str]]:
    """Return the collections that there are, by how their names end."""
    found: dict[str, list[str]] = {}
    for name in sorted(client.list_collections(timeout=READ_SECONDS)):
        if match := BUILD.fullmatch(name):
            found.setdefault(match["build"] or "", []).append(name)
    return found


def switch(client: MilvusClient, build: str) -> None:
    """Have a build be the one that is read."""
    from pymilvus import MilvusException

    try:
        client.describe_alias(PRESENT, timeout=READ_SECONDS)
    except MilvusException as error:
        if error.code not in NO_ALIAS:
            raise
        client.create_alias(f"{CATALOGUE}{build}", PRESENT, timeout=WRITE_SECONDS)
    else:
        client.alter_alias(f"{CATALOGUE}{build}", PRESENT, timeout=WRITE_SECONDS)


def ensure(client: MilvusClient, collection: str, dimension: int, index: VectorIndex | None) -> None:
    """Make a collection that is not there.

    A server searches nothing without an index. Milvus Lite does, exactly; an index of its own would be a second copy of
    the vectors, and a kill while that is written leaves a file that can never be loaded again: there `index` is None.
    """
    if not client.has_collection(collection, timeout=READ_SECONDS):
        client.create_collection(
            collection,
            schema=_schema(collection, dimension),
            index_params=_index(collection, index) if index else None,
            consistency_level="Strong",
            timeout=WRITE_SECONDS,
        )


def load(client: MilvusClient, collection: str, index: VectorIndex) -> None:
    """Have a server search a collection again after a restart, or at all, if it was left half made."""
    if not client.list_indexes(collection, timeout=READ_SECONDS):
        client.create_index(collection, _index(collection, index), timeout=WRITE_SECONDS)
    client.load_collection(collection, timeout=WRITE_SECONDS)


def _index(collection: str, index: VectorIndex) -> Any:
    from pymilvus import MilvusClient

    made = MilvusClient.prepare_index_params()
    kind: VectorIndex = "FLAT" if collection.startswith(CATALOGUE) else index  # nobody searches the catalogue
    made.add_index("vector", index_type=kind, metric_type="IP", params=dict(MADE_WITH[kind]))
    return made


def _schema(collection: str, dimension: int) -> Any:
    """One vector field and no nulls: all that every server can have, so `has_accuracy` stands next to the number."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name, limit in (written.LINE_TEXTS if collection.startswith(CATALOGUE) else written.ROW_TEXTS).items():
        schema.add_field(name, DataType.VARCHAR, is_primary=name == "uid", max_length=limit)
    if collection.startswith(CATALOGUE):
        schema.add_field("rows", DataType.INT64)
    else:
        schema.add_field("layer_index", DataType.INT64)
        schema.add_field("depth", DataType.DOUBLE)
    schema.add_field("has_accuracy", DataType.BOOL)
    schema.add_field("test_accuracy", DataType.DOUBLE)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    return schema
