"""Index: the only writer to Milvus. An event tells it whose rows to look at; what they should be, the bucket says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.index.settled import Answered, Settled
from layerscope.functions.index.wanted_rows import collections_of, line_of, stored_rows
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import IndexUpdated
from layerscope.schemas.identity import Identity
from layerscope.stores import blobs, catalogue
from layerscope.stores.blobs import Damaged
from layerscope.stores.catalogue import Seen, Standing
from layerscope.stores.index_rows import UNFINISHED, CatalogueRow, LayerRow, parts

ROUNDS = 5
GONE = "gone"


class Index(EventFunction):
    """Makes the rows of an event's model equal to what the bucket says, one event at a time."""

    def __init__(self) -> None:
        super().__init__("index")
        self._turn = asyncio.Lock()
        self._settled = Settled()

    async def respond(self, event: CloudEvent) -> CloudEvent:
        """Update the rows, look again, and repeat where the bucket has moved meanwhile."""
        if event.type == IndexUpdated.type:
            raise Ignored("what this function says itself")
        try:
            identity = Identity.parse(event.subject)
        except ValueError as error:
            raise Ignored(f"{event.subject} names no model") from error
        async with self._turn:
            if self._settled.is_told(identity.subject, event.id, event.time):
                raise Ignored(f"the rows of {identity.subject} were made later than this was sent")
            data = await self._updated(identity, event.id)
        return compose(data, source="/functions/index", subject=event.subject, cause=event)

    async def _updated(self, identity: Identity, event: str) -> IndexUpdated:
        looked, seen = datetime.now(UTC), await self._seen(identity)
        before = seen.present if seen else None
        known = self._settled.answered(identity.subject, before)
        if known is not None and await asyncio.to_thread(self._has_line, identity, known.data.fingerprint):
            if known.event != event:
                raise Ignored(f"the rows of {identity.subject} are as the bucket says")
            return known.data
        touched: set[str] | None = set()
        for _ in range(ROUNDS):
            began, fingerprint = looked, seen.present.fingerprint if seen else GONE
            rows, parts = await asyncio.to_thread(self._update, identity, seen)
            touched = None if touched is None or parts is None else touched | parts
            looked, seen = datetime.now(UTC), await self._seen(identity)
            if fingerprint == (seen.present.fingerprint if seen else GONE):
                break
        await self.services.cache.bump(touched)
        self._settled.looked(identity.subject, began)
        who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
        data = IndexUpdated(**who, rows=rows, fingerprint=fingerprint)
        if seen is not None and seen.present == before:  # nothing has moved since before the first look
            self._settled.remember(identity.subject, seen.present, Answered(data, event))
        return data

    async def _seen(self, identity: Identity) -> Seen | None:
        return await asyncio.to_thread(catalogue.seen, self.services.store, identity)

    def _update(self, identity: Identity, seen: Seen | None) -> tuple[int, frozenset[str] | None]:
        """Write the rows of a model as it was seen.

        Returns how many layer rows there are, and which parts of the index may have changed; None where that cannot be
        known, because an earlier attempt was cut short.
        """
        store, vectors = self.services.store, self.services.vectors
        before = vectors.line(identity.subject)
        if seen is None:
            changed = vectors.replace(identity.subject, {}, None)
            return 0, self._parts(identity, before, changed)
        standing = catalogue.standing_of(store, seen)
        line = line_of(standing, seen.present.fingerprint)
        # Rows tell of their model where they stay as they are, too: answers look further at the models they find.
        changed = collections_of(standing)
        if before is not None and before.vectors == line.vectors:
            line = replace(line, rows=before.rows)
            if before != line:
                vectors.replace(identity.subject, None, line)
        else:
            rows = self._rows(standing, line)
            line = replace(line, rows=sum(len(group) for group in rows.values()))
            changed |= vectors.replace(identity.subject, rows, line)
            if before is None:
                return line.rows, parts([identity.dataset], changed)
        return line.rows, self._parts(identity, before, changed)

    @staticmethod
    def _parts(identity: Identity, before: CatalogueRow | None, changed: frozenset[str]) -> frozenset[str] | None:
        """Return what has changed; of rows that an earlier attempt has removed already, nobody knows where they were."""
        cut_short = before is None or before.vectors == UNFINISHED
        return None if cut_short else parts([identity.dataset], changed)

    def _rows(self, standing: Standing, line: CatalogueRow) -> Mapping[str, Sequence[LayerRow]]:
        """Return the rows of layers and classes that a model should have."""
        try:
            return stored_rows(self.services.store, standing, line)
        except Damaged as damaged:
            blobs.set_aside(self.services.store, damaged.sha256)
            raise Ignored(f"{damaged}; they are made again, and their event will bring this one back") from damaged

    def _has_line(self, identity: Identity, fingerprint: str) -> bool:
        """Tell whether the index still says of a model what it was brought to; somebody may have emptied it."""
        line = self.services.vectors.line(identity.subject)
        return line is not None and line.fingerprint == fingerprint and line.vectors != UNFINISHED


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Index()
