"""Where layers are found by likeness, and models are listed: Milvus, a server or a Lite file.

Only `index` writes here, and all of it can be made again from the bucket. `functions/numpy_store.py` is the same in
memory, and says in tests what Milvus has to answer.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np

from layerscope.events.loopback import is_loopback
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.vector_index import VectorIndex
from layerscope.stores import milvus_collections as collections
from layerscope.stores import milvus_entities as written
from layerscope.stores.index_rows import (
    CATALOGUE,
    EVERY_ROW,
    UNFINISHED,
    CatalogueRow,
    LayerRow,
    Replacement,
    RowFilter,
    RowMatch,
    Vector,
    best,
    check,
    is_settled,
    unit_rows,
)
from layerscope.stores.milvus_collections import READ_SECONDS, WRITE_SECONDS

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")
Found = list[list[dict[str, Any]]]

BATCH_BYTES: Final = 16 * 1024 * 1024  # a server takes 64 MB at once
MOST_ROWS: Final = 16_384  # that a server answers with
# Channels to one address otherwise share how long they wait before they try it again, up to two minutes.
CHANNEL: Final = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
NO_DATABASE: Final = re.compile(r"database\b.*\b(not exist|not found)", re.IGNORECASE)
NO_SPACE: Final = "No space left on device"
NO_COLLECTION: Final = 100
NOT_LOADED: Final = 101


class VectorStore(Protocol):
    """Rows by collection, and the catalogue. Every method raises `Unavailable` where the store does not answer."""

    def replace(self, wanted: Sequence[Replacement]) -> list[frozenset[str]]:
        """Make the rows of each subject, over all collections, exactly those wanted, and its catalogue row too.

        Returns for each the collections in which rows were written or removed. Many at once cost little more than one.

        Once this returns, searches see it and a kill does not undo it. Cut short, it leaves no catalogue row that
        claims to be finished, and the same call again puts all right.

        Raises:
            ValueError: a row cannot be stored: its vector is not finite or not of length one, or a name is malformed;
                or a subject is named twice. Nothing was written.
        """

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, where: RowFilter = EVERY_ROW
    ) -> list[list[RowMatch]]:
        """Return for each of `vectors` (q, d) the `k` nearest rows of subjects other than `excluding`, best first.

        Of rows that are equally near, the first by name are returned; up to `MOST_ROWS` equals are looked at.
        """

    def vector(self, collection: str, uid: str) -> Vector | None:
        """Return the vector of a row; None where there is no such row."""

    def rows(self, collection: str, subjects: Sequence[str]) -> dict[str, list[LayerRow]]:
        """Return the rows of some subjects with their vectors, by `layer_index`; at most some thousand rows."""

    def line(self, subject: str) -> CatalogueRow | None:
        """Return the catalogue row of `subject`; None where there is none."""

    def lines(self, subjects: Sequence[str]) -> dict[str, CatalogueRow]:
        """Return the catalogue rows of those of some subjects that have one; at most some thousand."""

    def catalogue(self) -> list[CatalogueRow]:
        """Return every catalogue row, in no order."""

    def close(self) -> None:
        """Let go of the connection, or of the file."""


class MilvusStore:
    """A Milvus server by its URL or a Lite file by its path (`*.db`); safe in threads, connects on first use."""

    def __init__(
        self,
        uri: str,
        token: str = "",
        *,
        cafile: Path | None = None,
        build: str | None = None,
        index: VectorIndex = "FLAT",
    ) -> None:
        """Connect to nothing yet.

        Args:
            uri: `http://HOST:PORT`, with TLS `https://…`, with a database of the server `…/NAME`; or the path of a file.
            token: what the server asks for, if it does.
            cafile: authorities to trust, in PEM; None: those that gRPC trusts.
            build: the one to read and write; None: the one that is present, found out with each write.
            index: of the collections that this makes on a server; those that are there keep theirs.
        """
        self._index = index
        self._build, self._is_fixed = build, build is not None
        self._uri, self._token = uri, token
        self._tls = {} if cafile is None else {"server_pem_path": str(cafile)}
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None
        self._is_lite = False

    def replace(self, wanted: Sequence[Replacement]) -> list[frozenset[str]]:
        check(wanted)
        if not self._is_fixed:
            self._build = None
            return self._of(self._present()).replace(wanted)  # the whole of it, whatever is switched
        before = self.lines([one.subject for one in wanted])
        new = {one.subject: one.rows for one in wanted if one.rows is not None}
        unfinished = [
            dataclasses.replace(line, vectors=UNFINISHED, fingerprint=UNFINISHED)
            for subject, line in before.items()
            if subject in new
        ]
        self._write(CATALOGUE, [written.of_line(line) for line in unfinished], [])
        changed = self._replace_rows(new)
        lines = [written.of_line(one.line) for one in wanted if one.line is not None]
        self._write(CATALOGUE, lines, [one.subject for one in wanted if one.line is None and one.subject in before])
        return [frozenset(changed.get(one.subject, ())) for one in wanted]

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, where: RowFilter = EVERY_ROW
    ) -> list[list[RowMatch]]:
        asked = unit_rows(vectors)
        arguments: dict[str, Any] = {
            "data": list(asked),
            "filter": written.where(excluding, where),
            "output_fields": written.MATCH_FIELDS,
            "anns_field": "vector",
            "timeout": READ_SECONDS,
        }
        nothing: Found = [[] for _ in asked]
        limit = min(2 * k, MOST_ROWS)
        while True:
            how = {"metric_type": "IP", "params": collections.search_effort(limit)}
            call = partial(_search, limit=limit, search_params=how, **arguments)
            found = self._read(collection, call, nothing)
            rows = [[written.to_match(hit["entity"], hit["distance"]) for hit in hits] for hits in found]
            # Among equals at the end of the list the name decides, not chance; so all of them are looked at.
            if limit == MOST_ROWS or all(len(one) < limit or is_settled(one, k) for one in rows):
                return [best(one, k) for one in rows]
            limit = min(4 * limit, MOST_ROWS)

    def vector(self, collection: str, uid: str) -> Vector | None:
        found = self._get(collection, [uid], ["vector"])
        return np.asarray(found[0]["vector"], np.float32) if found else None

    def rows(self, collection: str, subjects: Sequence[str]) -> dict[str, list[LayerRow]]:
        where = f"subject in {_listed(subjects)}"
        arguments = {"filter": where, "output_fields": written.ROW_FIELDS, "limit": MOST_ROWS}
        found: dict[str, list[LayerRow]] = {}
        for row in sorted(map(written.to_row, self._query(collection, arguments)), key=lambda row: row.layer_index):
            found.setdefault(row.subject, []).append(row)
        return found

    def line(self, subject: str) -> CatalogueRow | None:
        return self.lines([subject]).get(subject)

    def lines(self, subjects: Sequence[str]) -> dict[str, CatalogueRow]:
        found = self._get(CATALOGUE, subjects, written.LINE_FIELDS)
        return {line.subject: line for line in map(written.to_line, found)}

    def catalogue(self) -> list[CatalogueRow]:
        def read(client: MilvusClient, name: str) -> list[CatalogueRow]:
            pages = client.query_iterator(name, MOST_ROWS, output_fields=written.LINE_FIELDS, timeout=READ_SECONDS)
            try:
                return [written.to_line(one) for page in iter(pages.next, []) for one in page]
            finally:
                pages.close()

        return self._read(CATALOGUE, read, [])

    def ensure_database(self) -> None:
        """Make the database that the URI names, if it names one that the server does not have.

        Raises:
            Unavailable: the server does not answer, or does not let it be made.
        """
        url = urlsplit(self._uri)
        name = url.path.strip("/")
        if not url.scheme or not name:
            return
        with _faults(), closing(self._client_at(url._replace(path="").geturl())) as client:
            if name not in client.list_databases(timeout=READ_SECONDS):
                client.create_database(name, timeout=WRITE_SECONDS)

    def begun(self) -> MilvusStore:
        """Return a new build, still empty, which is not present; what others have left unfinished is removed.

        Raises:
            Unavailable: Milvus does not answer.
        """
        self._build = None
        self._drop_all_but(self._present())
        made = self._of(f"_b{secrets.token_hex(4)}")
        made._ensure(CATALOGUE, 2)
        return made

    def _of(self, build: str) -> MilvusStore:
        """Return the same store, by the same connection, of one build."""
        client = self._connected()
        made = MilvusStore(self._uri, self._token, build=build, index=self._index)
        made._client, made._is_lite = client, self._is_lite
        return made

    def _drop_all_but(self, build: str) -> None:
        there = self._do(CATALOGUE, lambda client, _: collections.builds(client))
        for name in (name for left, names in there.items() if left != build for name in names):
            self._do(name, lambda client, _, name=name: client.drop_collection(name, timeout=WRITE_SECONDS))  # type: ignore[misc]

    def switch(self, to: MilvusStore) -> None:
        """Have a build that was `begun` be the present one, and remove all others.

        Raises:
            Unavailable: Milvus does not answer; then one of the two is present, whole.
        """
        build = to._present()
        self._do(CATALOGUE, lambda client, _: collections.switch(client, build))
        self._build = build
        self._drop_all_but(build)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
            if self._uri.endswith(".db"):
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self._uri)

    def _replace_rows(self, wanted: Mapping[str, Mapping[str, Sequence[LayerRow]]]) -> dict[str, set[str]]:
        """Make the rows of subjects, by collection, exactly those; return the collections where a subject's changed."""
        changed: dict[str, set[str]] = {}
        if not wanted:
            return changed
        build = self._present()
        there = self._do(CATALOGUE, lambda client, _: collections.builds(client).get(build, []))
        listed = [name.removesuffix(build) for name in there if not name.startswith(CATALOGUE)]
        for collection in sorted({*listed, *(name for groups in wanted.values() for name in groups)}):
            new = {row.uid: row for groups in wanted.values() for row in groups.get(collection, ())}
            found = self._subjects(collection, sorted(wanted))
            stale = {uid: subject for uid, subject in found.items() if uid not in new}
            self._write(collection, [written.of_row(row) for row in new.values()], sorted(stale))
            for subject in {*(row.subject for row in new.values()), *stale.values()}:
                changed.setdefault(subject, set()).add(collection)
        return changed

    def _subjects(self, collection: str, subjects: Sequence[str]) -> dict[str, str]:
        """Return whose each row is of those of some subjects, by `uid`."""
        where = f"subject in {_listed(subjects)}"
        arguments = {"filter": where, "output_fields": ["uid", "subject"], "limit": MOST_ROWS}
        found = {one["uid"]: one["subject"] for one in self._query(collection, arguments)}
        if len(found) < MOST_ROWS or len(subjects) == 1:
            return found
        half = len(subjects) // 2
        return self._subjects(collection, subjects[:half]) | self._subjects(collection, subjects[half:])

    def _get(self, collection: str, names: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        if not names:
            return []
        # Not by `ids`: the client puts those between quotes as they are.
        arguments = {"filter": f"uid in {_listed(names)}", "output_fields": fields, "limit": len(names)}
        return self._query(collection, arguments)

    def _query(self, collection: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        return self._read(collection, lambda client, name: client.query(name, **arguments, timeout=READ_SECONDS), [])

    def _write(self, collection: str, entities: list[dict[str, Any]], gone: list[str]) -> None:
        """Upsert, then delete, then see that it lasts; nothing to do is nothing done."""
        if not entities and not gone:
            return
        if entities:
            dimension = len(entities[0]["vector"])
            self._ensure(collection, dimension)
            batch = max(1, BATCH_BYTES // (4 * dimension + 1_024))
            for at in range(0, len(entities), batch):
                self._upsert(collection, entities[at : at + batch])
        if gone:
            where = f"uid in {_listed(gone)}"
            self._do(collection, lambda client, name: client.delete(name, filter=where, timeout=WRITE_SECONDS))
        # A server has in its log what it acknowledged, and needs 3 s for a flush. Milvus Lite searches rows that are
        # not flushed some fifty times slower.
        if self._is_lite:
            self._do(collection, lambda client, name: client.flush(name, timeout=WRITE_SECONDS))

    def _ensure(self, collection: str, dimension: int) -> None:
        index = None if self._is_lite else self._index
        self._do(collection, lambda client, name: collections.ensure(client, name, dimension, index))

    def _upsert(self, collection: str, entities: list[dict[str, Any]]) -> None:
        self._do(collection, lambda client, name: client.upsert(name, entities, timeout=WRITE_SECONDS))

    def _read(self, collection: str, call: Callable[[MilvusClient, str], T], absent: T) -> T:
        """Return what `call` reads, or `absent` where there is no such collection yet.

        Where a build has gone that was present, the one that is now is read.
        """
        from pymilvus import MilvusException

        for build in (self._present(), None):
            try:
                return self._do(collection, call)
            except MilvusException as error:
                if error.code != NO_COLLECTION:
                    raise
            if not self._is_fixed:
                self._build = None
            if build is None or self._present() == build:
                break
        return absent

    def _present(self) -> str:
        """Return how the names of the collections end."""
        build = self._build
        if build is None:
            client = self._connected()
            with _faults():
                build = self._build = collections.present_build(client)
        return build

    def _do(self, collection: str, call: Callable[[MilvusClient, str], T]) -> T:
        """Return what `call` does with the client and the name; what the server has not loaded, it does first."""
        from pymilvus import MilvusException

        client, name = self._connected(), f"{collection}{self._present()}"
        with _faults():
            try:
                return call(client, name)
            except MilvusException as error:
                if error.code != NOT_LOADED:
                    raise
                collections.load(client, name, self._index)
                return call(client, name)

    def _client_at(self, uri: str) -> MilvusClient:
        from pymilvus import MilvusClient

        options = CHANNEL | ({"grpc.enable_http_proxy": 0} if is_loopback(uri) else {})
        return MilvusClient(
            uri, token=self._token, timeout=READ_SECONDS, dedicated=True, grpc_options=options, **self._tls
        )

    def _connected(self) -> MilvusClient:
        with self._lock, _faults():
            if self._client is None:
                # What they log as errors is raised as well, or is Lite telling that it lacks a call.
                for chatty in ("pymilvus", "grpc._server", "milvus_lite"):
                    logging.getLogger(chatty).setLevel(logging.CRITICAL)
                if self._uri.endswith(".db"):
                    Path(self._uri).parent.mkdir(parents=True, exist_ok=True)
                client = self._client_at(self._uri)
                client.list_collections(timeout=READ_SECONDS)  # other calls answer for a database that is not there
                self._is_lite = client.get_server_version().startswith("milvus_lite")  # a full server may end in -lite
                self._client = client
            return self._client


def _listed(names: Iterable[str]) -> str:
    return f"[{', '.join(map(written.quoted, names))}]"


def _search(client: MilvusClient, collection: str, **arguments: Any) -> Found:
    found: Found = client.search(collection, **arguments)
    return found


@contextmanager
def _faults() -> Iterator[None]:
    """Tell a Milvus that does not answer, or not now, from one that was asked something wrong."""
    import grpc
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

    try:
        yield
    except grpc.RpcError as error:
        raise Unavailable(f"Milvus does not answer: {error.code().name}") from error
    except ConnectionConfigException as error:
        raise Unavailable(
            "the file of the index cannot be opened: another process has it, or milvus-lite is missing"
        ) from error
    except MilvusException as error:
        if NO_DATABASE.search(str(error.message)):  # the code differs from version to version
            raise Unavailable("Milvus lacks the database that MILVUS_URI names: layerscope init makes it") from error
        # The client raises subclasses for what it finds wrong itself; a server's codes from 1100 on are about requests.
        code = error.code if isinstance(error.code, int) else 0  # a gRPC status, where retries came to an end
        if type(error) is not MilvusException or code == NO_COLLECTION or 1100 <= code < 2000:
            raise
        reason = "its disk is full, no space left on it" if NO_SPACE in str(error.message) else f"code {code}"
        raise Unavailable(f"Milvus cannot answer now: {reason}") from error
