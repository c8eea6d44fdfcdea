"""A vector store as `query` reads it: the rows in memory, their nearest kept, and the store itself for what is too large.

Why so, and not lists that the index writes into the store: a new model of 50 layers enters some thousands of lists, each
of which would be written again, and repaired after a kill. In the memory of who reads they are entered in one product,
are right by construction, and a restart costs one product a list, when it is asked for. The figures are in docs/scale.md.

What was read before holds as long as the caller's state of the index does; with another state the catalogue says whose
rows have changed, and those alone are read again.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from layerscope.schemas.errors import Unavailable
from layerscope.stores.index_rows import (
    EVERY_ROW,
    UNFINISHED,
    CatalogueRow,
    LayerRow,
    Replacement,
    RowFilter,
    RowMatch,
    Vector,
    unit_rows,
)
from layerscope.stores.mirrored_rows import MirroredRows
from layerscope.stores.vector_store import VectorStore

AT_ONCE: Final = 2_000
"""Rows that are read while the first question waits; more are read in the background, and the store answers till then."""
READ_AT_ONCE: Final = 500
STATES: Final = 256

_log = logging.getLogger(__name__)


@dataclass
class Mirror:
    """A collection in memory: of each subject what its rows were made from, and the states that it is as new as."""

    made_from: dict[str, str] = field(default_factory=dict)
    rows: MirroredRows | None = None
    states: OrderedDict[str, None] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_loaded: bool = False
    loading: threading.Thread | None = None


class KeptNeighbours:
    """Rows of a vector store in memory, up to a number of bytes; safe in threads."""

    def __init__(self, store: VectorStore, most_bytes: int) -> None:
        self.store = store
        self._most = most_bytes
        self._mirrors: dict[str, Mirror] = {}
        self._too_large: set[str] = set()
        self._lock = threading.Lock()

    def at(self, state: str | None) -> VectorStore:
        """Return the store as of a state of the index or later; None: as it is at each call."""
        return _Reading(self, state)

    def counted(self, collection: str) -> int:
        """Return how many questions took a product with all rows of a collection."""
        mirror = self._mirrors.get(collection)
        return mirror.rows.searched if mirror and mirror.rows else 0

    @contextmanager
    def opened(self, collection: str, state: str | None) -> Iterator[Mirror | None]:
        """Hold a collection's rows, as new as `state`; None where the store itself has to be asked."""
        with self._lock:
            known = collection not in self._too_large
            mirror = self._mirrors.setdefault(collection, Mirror()) if known else None
        if mirror is None or not (mirror.is_loaded or self._load(collection, mirror)):
            yield None
            return
        with mirror.lock:
            if state is None or state not in mirror.states:
                self._refresh(collection, mirror)
                if state is not None:
                    mirror.states[state] = None
                    if len(mirror.states) > STATES:
                        mirror.states.popitem(last=False)
            if collection not in self._too_large:
                yield mirror
                return
        yield None

    def _load(self, collection: str, mirror: Mirror) -> bool:
        """Read a collection for the first time; return False while that goes on in the background."""
        with mirror.lock:
            if mirror.is_loaded:
                return True
            if mirror.loading is None and sum(line.rows for line in self.store.catalogue()) > AT_ONCE:
                mirror.loading = threading.Thread(target=self._read_all, args=(collection, mirror), daemon=True)
                mirror.loading.start()
            if mirror.loading is not None:
                return False
            self._refresh(collection, mirror)
            mirror.is_loaded = True
        return True

    def _read_all(self, collection: str, mirror: Mirror) -> None:
        """Read while others go on asking the store."""
        try:
            self._refresh(collection, mirror)
            mirror.is_loaded = True
        except Unavailable as error:
            _log.warning("%s cannot be read into memory now: %s", collection, error)
        finally:
            mirror.loading = None

    def _refresh(self, collection: str, mirror: Mirror) -> None:
        lines = {line.subject: line for line in self.store.catalogue()}
        for subject in mirror.made_from.keys() - lines.keys():
            _put(mirror, subject, [], "")
            del mirror.made_from[subject]
        changed = [
            line
            for subject, line in lines.items()
            if line.vectors == UNFINISHED or mirror.made_from.get(subject) != line.vectors
        ]
        for group in _groups(changed):
            found = self.store.rows(collection, [line.subject for line in group])
            for line in group:
                _put(mirror, line.subject, found.get(line.subject, ()), line.vectors)
            if self._bytes() > self._most:
                self._leave(collection)
                return

    def _bytes(self) -> int:
        with self._lock:
            return sum(one.rows.nbytes for one in self._mirrors.values() if one.rows is not None)

    def _leave(self, collection: str) -> None:
        _log.warning(
            "%s is too large to be held in memory (LAYERSCOPE_NEIGHBOURS_MB): the store is searched", collection
        )
        with self._lock:
            self._too_large.add(collection)
            self._mirrors.pop(collection, None)


@dataclass(frozen=True)
class _Reading:
    """The store as of one state of the index."""

    kept: KeptNeighbours
    state: str | None

    def replace(self, wanted: Sequence[Replacement]) -> list[frozenset[str]]:
        return self.kept.store.replace(wanted)

    def search(
        self, collection: str, vectors: Vector, *, k: int, excluding: str, where: RowFilter = EVERY_ROW
    ) -> list[list[RowMatch]]:
        asked = unit_rows(vectors)
        with self.kept.opened(collection, self.state) as mirror:
            if mirror is None:
                return self.kept.store.search(collection, vectors, k=k, excluding=excluding, where=where)
            if mirror.rows is None:
                return [[] for _ in asked]
            return mirror.rows.search(asked, k=k, excluding=excluding, where=where)

    def vector(self, collection: str, uid: str) -> Vector | None:
        with self.kept.opened(collection, self.state) as mirror:
            if mirror is None:
                return self.kept.store.vector(collection, uid)
            return None if mirror.rows is None else mirror.rows.vector(uid)

    def rows(self, collection: str, subjects: Sequence[str]) -> dict[str, list[LayerRow]]:
        return self.kept.store.rows(collection, subjects)

    def line(self, subject: str) -> CatalogueRow | None:
        return self.kept.store.line(subject)

    def lines(self, subjects: Sequence[str]) -> dict[str, CatalogueRow]:
        return self.kept.store.lines(subjects)

    def catalogue(self) -> list[CatalogueRow]:
        return self.kept.store.catalogue()

    def close(self) -> None:
        self.kept.store.close()


def _put(mirror: Mirror, subject: str, rows: Sequence[LayerRow], made_from: str) -> None:
    if mirror.rows is None and rows:
        mirror.rows = MirroredRows(len(rows[0].vector))
    if mirror.rows is not None:
        # What is read at first has its lists made when they are asked for.
        mirror.rows.put(subject, rows, listed=mirror.is_loaded)
    mirror.made_from[subject] = made_from


def _groups(lines: Iterable[CatalogueRow]) -> Iterator[list[CatalogueRow]]:
    """Yield catalogue rows in groups, so that the layer rows of each are few enough for one answer."""
    group: list[CatalogueRow] = []
    for line in lines:
        if group and sum(one.rows for one in group) + line.rows > READ_AT_ONCE:
            yield group
            group = []
        group.append(line)
    if group:
        yield group
