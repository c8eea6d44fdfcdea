"""A turn of the index: look at models in the bucket, make their rows, write them all at once, and look again.

`func.py` takes turns for events, `rebuild.py` for a whole bucket. Blocking, but for `looks`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from layerscope.functions.index.wanted_rows import collections_of, line_of, stored_rows
from layerscope.schemas.identity import Identity
from layerscope.stores import blobs, catalogue
from layerscope.stores.blobs import Damaged
from layerscope.stores.catalogue import Seen
from layerscope.stores.index_rows import UNFINISHED, CatalogueRow, Replacement, parts
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore

GONE: Final = "gone"
WRITE_BYTES: Final = 64 * 1024 * 1024
"""Vectors that are in memory at once, however many models wait; those of one model always are."""
SIDE_BY_SIDE: Final = 4
"""Looks at once; functions of one process share its threads."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the bucket found of a model, and when it began; nothing where there is no such upload."""

    began: datetime
    seen: Seen | None

    @property
    def fingerprint(self) -> str:
        """Return what tells one state of a model from another."""
        return self.seen.present.fingerprint if self.seen else GONE


@dataclass(frozen=True, slots=True)
class Written:
    """Rows were made from a look: how many a model has now, and the parts of the index that may have changed.

    `touched` is None where that cannot be known, because an earlier attempt was cut short.
    """

    look: Look
    rows: int
    touched: frozenset[str] | None


async def looks(store: ObjectStore, identities: Collection[Identity]) -> dict[str, Look | BaseException]:
    """Look at models in the bucket, some side by side; by subject, what was found, or why it could not be looked at."""
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(identity: Identity) -> Look:
        async with places:
            return await asyncio.to_thread(look, store, identity)

    found = await asyncio.gather(*map(one, identities), return_exceptions=True)
    return {identity.subject: what for identity, what in zip(identities, found, strict=True)}


def look(store: ObjectStore, identity: Identity) -> Look:
    """Look at a model in the bucket."""
    return Look(datetime.now(UTC), catalogue.seen(store, identity))


def write(store: ObjectStore, vectors: VectorStore, wanted: Mapping[str, Look]) -> Iterator[tuple[str, Written]]:
    """Make the rows of models, by subject, what they should be after a look at each; yield what was written of each.

    One whose vectors are damaged keeps its rows and is passed over; its vectors are set aside, to be made again.

    Raises:
        Unavailable: a service does not answer; what was written stays.
    """
    before = vectors.lines(list(wanted))
    group: list[_Wanted] = []
    held = 0
    for subject, look in wanted.items():
        try:
            group.append(_wanted(store, subject, look, before.get(subject)))
        except Damaged as damaged:
            _log.warning("%s", damaged)
            blobs.set_aside(store, damaged.sha256)
            continue
        held += group[-1].size
        if held >= WRITE_BYTES:
            yield from _replace(vectors, group)
            group, held = [], 0
    yield from _replace(vectors, group)


@dataclass(frozen=True, slots=True)
class _Wanted:
    look: Look
    before: CatalogueRow | None
    replacement: Replacement
    collections: frozenset[str]

    @property
    def size(self) -> int:
        rows = self.replacement.rows or {}
        return sum(row.vector.nbytes for group in rows.values() for row in group)

    def written(self, changed: frozenset[str]) -> Written:
        subject, line, before = self.replacement.subject, self.replacement.line, self.before
        touched = parts([Identity.parse(subject).dataset], changed | self.collections)
        # Of rows that an earlier attempt has removed already, nobody knows where they were.
        cut_short = line is None if before is None else before.vectors == UNFINISHED
        return Written(self.look, line.rows if line else 0, None if cut_short else touched)


def _wanted(store: ObjectStore, subject: str, look: Look, before: CatalogueRow | None) -> _Wanted:
    if look.seen is None:
        return _Wanted(look, before, Replacement(subject, {}, None), frozenset())
    standing = catalogue.standing_of(store, look.seen)
    line = line_of(standing, look.fingerprint)
    # Rows tell of their model where they stay as they are, too: answers look further at the models they find.
    collections = collections_of(standing)
    if before is not None and before.vectors == line.vectors:
        return _Wanted(look, before, Replacement(subject, None, replace(line, rows=before.rows)), collections)
    rows = stored_rows(store, standing, line)
    line = replace(line, rows=sum(len(group) for group in rows.values()))
    return _Wanted(look, before, Replacement(subject, rows, line), collections)


def _replace(vectors: VectorStore, group: Sequence[_Wanted]) -> Iterator[tuple[str, Written]]:
    moved = [one for one in group if one.replacement.rows is not None or one.replacement.line != one.before]
    done = vectors.replace([one.replacement for one in moved]) if moved else []
    changed = {one.replacement.subject: names for one, names in zip(moved, done, strict=True)}
    for one in group:
        subject = one.replacement.subject
        yield subject, one.written(changed.get(subject, frozenset()))
