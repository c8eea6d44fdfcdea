"""Dead letters as they lie in the bucket: one object for each event and function, however often it was given up.

`replay`, to which their topic is delivered, writes them; they are kept 90 days after the last one, as in the topic.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.digests import digest
from layerscope.schemas.errors import NotFound
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.replays import DeadLetterRecord, Discarded
from layerscope.stores.object_store import ObjectStore

KEPT: Final = timedelta(days=90)
KEPT_PLACES: Final = 20


def identifier(event: str, function: str) -> str:
    """Return the id of the dead letters of an event and a function."""
    return digest({"event": event, "function": function})


def record(store: ObjectStore, letter: DeadLetterRecord) -> DeadLetterRecord:
    """Write a dead letter down, or count it with those of the same event and function; once for each place in the topic."""
    earlier = read(store, letter.id)
    if earlier is not None:
        if letter.places and set(letter.places) <= set(earlier.places):
            return earlier  # the same record, delivered again
        places = (*earlier.places, *letter.places)[-KEPT_PLACES:]
        counted = {"times": earlier.times + 1, "first": earlier.first, "places": places}
        letter = letter.model_copy(update=counted)
    store.put(keys.PRODUCTS, keys.dead_letter(letter.id), letter.to_bytes(), media_type=DATA_TYPE)
    return letter


def read(store: ObjectStore, letter: str) -> DeadLetterRecord | None:
    """Return a dead letter; None where there is none of this id, or it cannot be read."""
    try:
        return DeadLetterRecord.from_bytes(store.get(keys.PRODUCTS, keys.dead_letter(letter)))
    except (NotFound, ValueError):
        return None


def discarded(store: ObjectStore, letter: str) -> Discarded | None:
    """Return who discarded a dead letter and why; None where nobody did."""
    try:
        return Discarded.from_bytes(store.get(keys.PRODUCTS, keys.discarded(letter)))
    except (NotFound, ValueError):
        return None


def discard(store: ObjectStore, letter: DeadLetterRecord, reason: str) -> Discarded:
    """Write down that nothing is to be done about a dead letter; one that comes after it is listed again."""
    said = Discarded(times=letter.times, reason=reason, at=datetime.now(UTC))
    store.put(keys.PRODUCTS, keys.discarded(letter.id), said.to_bytes(), media_type=DATA_TYPE)
    return said


def open_letters(store: ObjectStore) -> Iterator[DeadLetterRecord]:
    """Yield the dead letters that nobody has discarded; what cannot be read is passed over."""
    listed = {one.key for one in store.list(keys.PRODUCTS, keys.DEAD_LETTERS)}
    for key in sorted(listed):
        if key.endswith(".discarded.json"):
            continue
        name = key.removeprefix(keys.DEAD_LETTERS).removesuffix(".json")
        letter = read(store, name)
        if letter is None:
            continue
        said = discarded(store, name) if keys.discarded(name) in listed else None
        if said is None or said.times < letter.times:
            yield letter


def forget(store: ObjectStore, now: datetime) -> int:
    """Remove the dead letters that are kept no longer, and return how many objects that were."""
    old = [one.key for one in store.list(keys.PRODUCTS, keys.DEAD_LETTERS) if now - one.modified > KEPT]
    for key in old:
        store.remove(keys.PRODUCTS, key)
    return len(old)
