"""An outcome is told once, however often its event comes: who tells it says so first, in an object of the bucket.

    claimed ─ the webhook takes it ─▶ told
       └ it does not: removed, and the next delivery begins again; its teller died: taken over after a while

Only where the webhook took it and the store then cannot be told, it is told twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.errors import Busy, Changed, Ignored, NotFound, NotTaken, Unavailable
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.notifications import Notification
from layerscope.stores import damage
from layerscope.stores.object_store import ObjectStore

CLAIM: Final = timedelta(minutes=1)
"""So long nobody else tells it: longer than a webhook may take."""


async def once(store: ObjectStore, place: str, subject: str, event: str, tell: Callable[[], Awaitable[None]]) -> None:
    """Tell an outcome, unless somebody has or does.

    Args:
        store: where it is written down.
        place: the key of this outcome.
        subject: whose outcome it is.
        event: id of the event that is answered.
        tell: raises `Unavailable` or `NotTaken` where it was not told.

    Raises:
        Ignored: it was told.
        Busy: it is being told.
        Unavailable: the store does not answer; and as of `tell`.
        NotTaken: as of `tell`.
    """
    claim = Notification(state="claimed", subject=subject, event=event, by=uuid.uuid4().hex, at=datetime.now(UTC))
    await asyncio.to_thread(_claim, store, place, claim)
    try:
        await tell()
    except (Unavailable, NotTaken):
        with suppress(Unavailable):  # then it is taken over later
            await asyncio.to_thread(store.remove, keys.PRODUCTS, place)
        raise
    told = claim.model_copy(update={"state": "told", "at": datetime.now(UTC)})
    await asyncio.to_thread(store.put, keys.PRODUCTS, place, told.to_bytes(), media_type=DATA_TYPE)


def _claim(store: ObjectStore, place: str, claim: Notification) -> None:
    content = claim.to_bytes()
    if store.put(keys.PRODUCTS, place, content, media_type=DATA_TYPE, only_if_absent=True):
        return
    try:
        there = store.head(keys.PRODUCTS, place)
        etag = there.etag if there else ""
        found = damage.parse(keys.PRODUCTS, place, store.get(keys.PRODUCTS, place, etag=etag), Notification)
        if found == claim:  # the answer to our own put was lost
            return
        if found is not None and found.state == "told":
            raise Ignored(f"this outcome of {claim.subject} was told")
        if found is not None and claim.at - found.at < CLAIM:
            raise Busy(f"this outcome of {claim.subject} is being told")
        store.put(keys.PRODUCTS, place, content, media_type=DATA_TYPE, replaces=etag)
    except (NotFound, Changed) as error:
        raise Busy(f"this outcome of {claim.subject} is being told") from error
