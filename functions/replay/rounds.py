"""The timer's path of *missing*: what a round costs grows with what changed, and all else is looked at within an hour.

    a round ─┬─ the list of the bucket `models`, compared with the last one ─▶ uploads that are new, changed or gone
             ├─ the list of the datasets ────────────────────────────────────▶ models whose dataset changed
             ├─ what was asked for before and is still not there, or is due again after a failure
             ├─ a slice of all models: each record and manifest is read once, then only if its ETag is another
             └─ a slice of the blobs, by the beginning of their digests, and a row of the index as a sample

Nothing here depends on the log, so that whatever the log loses is found. All of it is in memory: a process that starts
looks at everything once, the least finished first, at a bounded rate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

from layerscope.functions.replay.asks import Ask, asks_of, request
from layerscope.functions.replay.missing import asks_of_keys, gone
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity, UploadKey
from layerscope.schemas.manifests import UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.stores import catalogue
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.outcomes.look import Look
from layerscope.stores.outcomes.places import Seen
from layerscope.stores.outcomes.shelves import Listed, in_order, lost_blobs, shelves
from layerscope.stores.outcomes.sweep import looks
from layerscope.stores.uploads import Upload, by_identity
from layerscope.stores.vector_store import VectorStore

SLICES: Final = 60
"""Rounds in which everything is looked at: an hour of them."""

A_ROUND: Final = 2_000
"""Model versions that one round looks at although nothing is known to have happened to them."""

FEW: Final = 50
"""Up to so many are listed, and their rows asked for, one by one; more come from one list."""

MANY_NAMES: Final = 10_000

BLOB_PREFIXES: Final = tuple("0123456789abcdef")
"""Few, as a store may go through all blobs for each list, and each is compared with all that is known of files."""

T = TypeVar("T")
Row = Callable[[Identity], CatalogueRow | None]


@dataclass(slots=True)
class Rounds:
    """What one process remembers from round to round; not safe in threads, as there is one round at a time."""

    known: KnownOutcomes = field(default_factory=KnownOutcomes)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    most: int = A_ROUND
    _current: dict[Identity, Upload] = field(default_factory=dict)
    _open: dict[Identity, int] = field(default_factory=dict)  # rounds in which something of it was asked for
    _later: dict[Identity, datetime] = field(default_factory=dict)  # failures that are due again
    _pending: dict[Identity, None] = field(default_factory=dict)  # to be looked at in its turn
    _gone: set[Identity] = field(default_factory=set)
    _names: dict[str, UploadKey] = field(default_factory=dict)
    _changed_datasets: set[str] = field(default_factory=set)
    _has_begun: bool = False
    _round: int = 0

    def asks(self, store: ObjectStore, vectors: VectorStore) -> list[Ask]:
        """Return what one round asks for.

        Raises:
            Unavailable: the store or the index does not answer; what was to be looked at is in the next round.
        """
        self._changed_datasets |= self.known.refresh_datasets(store)
        if len(self._names) > 2 * len(self._current) + MANY_NAMES:
            self._names.clear()  # of objects that have gone
        listed, misnamed = by_identity(store.list(keys.MODELS), self._names)
        asks = list(asks_of_keys(store, self.known, misnamed))
        self._note(store, listed)
        if self._round % SLICES == 0 or self._index_was_lost(vectors):
            asks += self._compare_rows(vectors)
        asks += self._rows_of_gone(vectors)
        due = [one for one, at in self._later.items() if at <= self.clock()]
        turn = [one for one in islice(self._pending, self.most) if one not in self._open]
        asks += self._look_at({*self._open, *due, *turn}, store, vectors)
        asks += self._slice(store, vectors)
        self._round += 1
        return asks

    def _note(self, store: ObjectStore, listed: dict[Identity, Upload]) -> None:
        """Compare the uploads with those of the last round, and note whose turn it is."""
        if not self._has_begun:
            self._begin(store, listed)
        before, self._current = self._current, listed
        for identity in before.keys() - listed.keys():
            self._gone.add(identity)
            self._forget(identity)
        changed = [identity for identity, upload in listed.items() if before.get(identity) != upload]
        self._gone -= set(changed)
        self._open |= dict.fromkeys(changed, 0)
        self._pending |= dict.fromkeys(one for one in listed if one.dataset in self._changed_datasets)
        self._changed_datasets = set()

    def _begin(self, store: ObjectStore, current: dict[Identity, Upload]) -> None:
        """Put everything in order of what a list tells of it: not read yet, then not complete, then the newest."""
        places = {}
        for identity, listed in shelves(store, in_order(current)):
            is_read, is_complete = _outlook(identity, listed)
            if not is_read:
                self._open[identity] = 0
                continue
            places[identity] = (is_complete, -current[identity].modified.timestamp())
        self._pending = dict.fromkeys(sorted(places, key=places.__getitem__))
        self._current, self._has_begun = current, True

    def _forget(self, identity: Identity) -> None:
        for kept in (self._open, self._later, self._pending, self.known.models):
            kept.pop(identity, None)

    def _look_at(self, identities: Collection[Identity], store: ObjectStore, vectors: VectorStore) -> Iterator[Ask]:
        """Look at these model versions, and note which of them are to be looked at again."""
        chosen = in_order(one for one in identities if one in self._current)
        stuck = {one for one in chosen if _is_power_of_two(self._open.get(one, 0))}
        rows = _rows(vectors, len(chosen))
        for thorough, group in ((False, [one for one in chosen if one not in stuck]), (True, in_order(stuck))):
            look = Look(store, self.known, is_thorough=thorough, verifies=thorough, now=self.clock())
            for seen in looks(look, self._current, self._shelves(store, group)):
                yield from self._asked(seen, rows)

    def _shelves(self, store: ObjectStore, chosen: list[Identity]) -> Iterable[tuple[Identity, Listed]]:
        if len(chosen) <= FEW:
            return ((one, catalogue.listing(store, one)) for one in chosen)
        return shelves(store, chosen)

    def _asked(self, seen: Seen, rows: Row) -> Iterator[Ask]:
        identity, asks = seen.upload.identity, asks_of(seen)
        if seen.is_stale(rows(identity)):
            asks.append(request(identity, "index", "its rows are not what the bucket says"))
        self._pending.pop(identity, None)
        self._later.pop(identity, None)
        if seen.due_at is not None:
            self._later[identity] = seen.due_at
        if asks:
            self._open[identity] = self._open.get(identity, 0) + 1
        else:
            self._open.pop(identity, None)
        return iter(asks)

    def _slice(self, store: ObjectStore, vectors: VectorStore) -> list[Ask]:
        """Look thoroughly at a part of all model versions and blobs, in which nothing is known to have happened."""
        at = self._round % SLICES
        ordered = in_order(self._current)
        chosen = [one for one in _part(ordered, at) if one not in self._open and one not in self._pending]
        before = {one: self.known.of(one).fingerprint for one in chosen}
        look, asks = Look(store, self.known, is_thorough=True, now=self.clock()), list[Ask]()
        for seen in looks(look, self._current, shelves(store, chosen)):
            if seen.lacks() or seen.due_at is not None or seen.fingerprint != before[seen.upload.identity]:
                asks += self._asked(seen, lambda identity: vectors.line(identity.subject))
        for prefix in _part(BLOB_PREFIXES, at):
            asks += self._look_at(lost_blobs(store, self.known, prefix) & self._current.keys(), store, vectors)
        return asks

    def _index_was_lost(self, vectors: VectorStore) -> bool:
        """Tell whether a row that was there is not: one is asked for, another in each round."""
        settled = [one for one in self.known.models if one not in self._open and one not in self._pending]
        if not settled:
            return False
        sample = settled[self._round % len(settled)]
        row = vectors.line(sample.subject)
        return row is None or row.fingerprint != self.known.of(sample).fingerprint

    def _compare_rows(self, vectors: VectorStore) -> list[Ask]:
        """Compare all rows of the index with what is known; look again at those that differ."""
        rows = {row.subject: row.fingerprint for row in vectors.catalogue()}
        for identity, model in self.known.models.items():
            if rows.get(identity.subject) != model.fingerprint and identity not in self._open:
                self._pending[identity] = None
        present = {identity.subject for identity in self._current}
        return [gone(subject) for subject in rows if subject not in present]

    def _rows_of_gone(self, vectors: VectorStore) -> list[Ask]:
        self._gone = {one for one in self._gone if vectors.line(one.subject) is not None}
        return [gone(one.subject) for one in self._gone]


def _rows(vectors: VectorStore, wanted: int) -> Row:
    if wanted <= FEW:
        return lambda identity: vectors.line(identity.subject)
    rows = {row.subject: row for row in vectors.catalogue()}
    return lambda identity: rows.get(identity.subject)


def _is_power_of_two(number: int) -> bool:
    """Tell so of 2, 4, 8 …: what is asked for in vain is looked at more closely in ever fewer rounds."""
    return number >= 2 and number & (number - 1) == 0


def _part(of: Sequence[T], at: int) -> list[T]:
    """Return one of SLICES parts, as even as may be."""
    return list(of[len(of) * at // SLICES : len(of) * (at + 1) // SLICES])


def _outlook(identity: Identity, listed: Listed) -> tuple[bool, bool]:
    """Tell by names alone whether an upload has a record of the present recipe, and each product a manifest of its own."""
    record = f"{keys.uploads_of(identity)}r{UploadRecord.RECIPE}-"
    made = {tuple(key.split("/")[5:]) for key in listed if key.startswith(keys.MANIFESTS)}
    recipes = {(name[0], name[1].partition("-")[0]) for name in made if len(name) == 2}
    wanted = {(one.declared.name, f"r{one.declared.recipe}") for one in declared_products()}
    return any(key.startswith(record) for key in listed), wanted <= recipes
