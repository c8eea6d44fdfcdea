"""Where layers are found by likeness: rows of unit vectors in Milvus, and beside them the catalogue of model versions.

Only `index` writes here, and all of it can be made again from the bucket. A collection holds one metric over one probe
set, so that a search is an inner product of vectors that may be compared. `functions/numpy_store.py` is the same in
memory, and says in tests what Milvus has to answer.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from functions.errors import Unavailable
from schemas.digests import canonical_json
from schemas.manifests import Refusal
from schemas.queries import ProductState

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")
Vector = npt.NDArray[np.float32]

CATALOGUE: Final = "models_r1"
UNFINISHED: Final = ""
NORM_TOLERANCE: Final = 1e-4
READ_SECONDS: Final = 5.0
WRITE_SECONDS: Final = 30.0
BATCH_ROWS: Final = 400  # at most 400 × 32,768 × 4 bytes: below the 64 MB that a server takes at once
MOST_ROWS: Final = 16_384  # of one answer, to any server
NAME_BYTES: Final = 256
LAYER_BYTES: Final = 4_096
NO_COLLECTION: Final = 100
NOT_LOADED: Final = 101
_COLLECTION: Final = re.compile(r"[a-z][a-z_]{0,40}_[0-9a-f]{16}_r[0-9]{1,9}")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@dataclass(frozen=True, slots=True)
class Row:
    """One layer in one collection: `uid` tells it from every other, `vector` is float32 (d,) of length one."""

    uid: str
    subject: str
    layer: str
    layer_index: int
    test_accuracy: float | None
    vector: Vector


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One model version; `vectors` and `fingerprint` name the state of the bucket that its rows, and all of it, show."""

    subject: str
    state: ProductState
    uploaded: str
    content: str | None
    test_accuracy: float | None
    refusal: Refusal | None
    vectors: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Match:
    """A row that was found, and the inner product of its vector with the one asked for, to six digits."""

    subject: str
    layer: str
    score: float
    test_accuracy: float | None


class VectorStore(Protocol):
    """Rows by collection, and the catalogue. Every method raises `Unavailable` where the store does not answer."""

    def replace(self, subject: str, rows: Mapping[str, Sequence[Row]] | None, line: CatalogueRow | None) -> None:
        """Make the rows of `subject`, over all collections, exactly `rows`, and its catalogue row `line`.

        Once this returns, searches see it and a kill does not undo it. Cut short, it leaves no catalogue row that
        claims to be finished; the same call again puts all right.

        Args:
            rows: collection to rows; None leaves the rows as they are.
            line: None: the subject is not in the catalogue.

        Raises:
            ValueError: a row cannot be stored: its vector is not finite or not of length one, or a name is malformed.
        """

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, min_accuracy: float | None = None
    ) -> list[list[Match]]:
        """Return for each of `vectors` (q, d) its `k` nearest rows of other subjects, best first, ties by name."""

    def vector(self, collection: str, uid: str) -> Vector | None:
        """Return the vector of a row; None where there is no such row."""

    def line(self, subject: str) -> CatalogueRow | None:
        """Return the catalogue row of `subject`; None where there is none."""

    def catalogue(self) -> list[CatalogueRow]:
        """Return every catalogue row, in no order."""

    def close(self) -> None:
        """Let go of the connection, or of the file."""


class MilvusStore:
    """A Milvus server by its URL, or a Milvus Lite file by its path (`*.db`); safe in threads, connects on first use."""

    def __init__(self, uri: str, token: str = "") -> None:
        self._uri, self._token = uri, token
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None
        self._is_lite = False
        self._ready: set[str] = set()

    def replace(self, subject: str, rows: Mapping[str, Sequence[Row]] | None, line: CatalogueRow | None) -> None:
        check(subject, rows or {})
        if rows is not None:
            before = self.line(subject)
            if before is not None:
                self._write(CATALOGUE, 2, [_line_entity(dataclasses.replace(before, fingerprint=UNFINISHED))], ())
            self._replace_rows(subject, rows)
        if line is not None:
            self._write(CATALOGUE, 2, [_line_entity(line)], ())
        elif self.line(subject) is not None:
            self._write(CATALOGUE, 2, (), [subject])

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, min_accuracy: float | None = None
    ) -> list[list[Match]]:
        asked = unit_rows(vectors)
        found = self._read(
            collection,
            lambda client: client.search(
                collection,
                data=list(asked),
                limit=min(2 * k, MOST_ROWS),  # rows of equal score at the end of the list are then cut by name, not by chance
                filter=_other_than(excluding, min_accuracy),
                output_fields=["subject", "layer", "has_accuracy", "test_accuracy"],
                anns_field="vector",
                timeout=READ_SECONDS,
            ),
            absent=[[] for _ in asked],
        )
        return [best((_match(hit["entity"], hit["distance"]) for hit in hits), k) for hits in found]

    def vector(self, collection: str, uid: str) -> Vector | None:
        found = self._get(collection, uid, ["vector"])
        return np.asarray(found[0]["vector"], np.float32) if found else None

    def line(self, subject: str) -> CatalogueRow | None:
        found = self._get(CATALOGUE, subject, _LINE_FIELDS)
        return _line(found[0]) if found else None

    def catalogue(self) -> list[CatalogueRow]:
        def read(client: MilvusClient) -> list[CatalogueRow]:
            pages = client.query_iterator(
                CATALOGUE, batch_size=MOST_ROWS, output_fields=_LINE_FIELDS, timeout=READ_SECONDS
            )
            try:
                return [_line(one) for page in iter(pages.next, []) for one in page]
            finally:
                pages.close()

        return self._read(CATALOGUE, read, absent=[])

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is None:
            return
        client.close()
        if self._uri.endswith(".db"):
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._uri)

    def _replace_rows(self, subject: str, rows: Mapping[str, Sequence[Row]]) -> None:
        listed = self._do(lambda client: client.list_collections(timeout=READ_SECONDS))
        for collection in sorted({*rows, *filter(_COLLECTION.fullmatch, listed)}):
            new = rows.get(collection, ())
            had = self._read(
                collection,
                lambda client, name=collection: client.query(
                    name, filter=f"subject == {quoted(subject)}", output_fields=["uid"], limit=MOST_ROWS, timeout=READ_SECONDS
                ),
                absent=[],
            )
            stale = {one["uid"] for one in had} - {row.uid for row in new}
            if new or stale:
                self._write(collection, new[0].vector.size if new else 0, [_entity(row) for row in new], sorted(stale))

    def _write(self, collection: str, dimension: int, entities: Sequence[dict[str, Any]], gone: Sequence[str]) -> None:
        """Upsert, then delete, then make it last."""
        if entities:
            self._do(lambda client: self._ensure(client, collection, dimension))
        for at in range(0, len(entities), BATCH_ROWS):
            batch = entities[at : at + BATCH_ROWS]
            self._do(lambda client, data=batch: client.upsert(collection, list(data), timeout=WRITE_SECONDS))
        if gone:
            self._read(collection, lambda client: client.delete(collection, ids=list(gone), timeout=WRITE_SECONDS), absent={})
        # A server's log has what it acknowledged, and a flush costs it 3 s. Milvus Lite searches rows that are not
        # flushed some fifty times slower, and is only then sure to have them after a kill.
        if self._is_lite:
            self._do(lambda client: client.flush(collection, timeout=WRITE_SECONDS))

    def _ensure(self, client: MilvusClient, collection: str, dimension: int) -> None:
        """Make a collection that is not there, and finish one that was left half made."""
        if collection in self._ready and client.has_collection(collection, timeout=READ_SECONDS):
            return
        from pymilvus import MilvusClient as Client

        index = Client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        if not client.has_collection(collection, timeout=READ_SECONDS):
            client.create_collection(
                collection,
                schema=_schema(collection, dimension),
                index_params=index,
                consistency_level="Strong",
                timeout=WRITE_SECONDS,
            )
        elif not client.list_indexes(collection, timeout=READ_SECONDS):
            client.create_index(collection, index, timeout=WRITE_SECONDS)
        self._ready.add(collection)
