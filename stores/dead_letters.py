"""Dead letters as they lie in the bucket: one object for each cause, however often something was given up for it.

`replay`, to which their topic is delivered, writes them; they are kept 90 days after the last one, as in the topic. One is
open until somebody discards it, or what it asked for is there; whoever lists or counts them reads them here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from layerscope.schemas import keys
from layerscope.schemas.digests import digest
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.files import DATA_TYPE
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.replays import DeadLetterRecord, Discarded
from layerscope.stores import damage
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.outcomes.places import ADMIT

KEPT: Final = timedelta(days=90)
KEPT_PLACES: Final = 20
DISCARDED: Final = ".discarded.json"
SETTLED: Final = "what it asked for is there"
"""Stands for the reason in what is discarded by itself."""

_log = logging.getLogger(__name__)
_VARYING: Final = re.compile(r"\S*[0-9]\S*")


def identifier(event: str, function: str) -> str:
    """Return the id of the dead letters of one event and a function: of a record that nobody could read.

    Every dead letter once had such an id, and some may still be kept.
    """
    return digest({"event": event, "function": function})


def of_cause(
    function: str, about: str, upload: str, *, status: int | None, error: str, reason: str, is_beside: bool
) -> str:
    """Return the id of all dead letters of one cause, whoever asked, and in which words.

    Args:
        function: who did not take the event.
        about: the event's subject.
        upload: the ETag of the upload that was current; nothing where there was none.
        status: of the last answer; None: there was none.
        error: the class of the error.
        reason: what was answered; words with a digit in them (seconds, processes, files) tell no causes apart.
        is_beside: it was to be made once more, next to what stands.
    """
    answer = [status, error, _gist(reason)]
    return digest({"function": function, "about": [about, upload, is_beside], "answer": answer})


def record(store: ObjectStore, letter: DeadLetterRecord) -> DeadLetterRecord:
    """Write a dead letter down, or count it with those of the same cause; once for each place in the topic.

    Raises:
        Unavailable: the object store does not answer.
    """
    earlier = read(store, letter.id) or _under_its_event(store, letter)
    if earlier is None:
        # Of a letter that could not be read, or is kept no longer, nothing was said about this one.
        store.remove(keys.PRODUCTS, keys.discarded(letter.id))
    else:
        if letter.places and set(letter.places) <= set(earlier.places):
            return earlier  # the same record, delivered again
        places = (*earlier.places, *letter.places)[-KEPT_PLACES:]
        counted = {"times": earlier.times + 1, "first": earlier.first, "places": places}
        letter = letter.model_copy(update=counted)
    store.put(keys.PRODUCTS, keys.dead_letter(letter.id), letter.to_bytes(), media_type=DATA_TYPE)
    if earlier is not None and earlier.id != letter.id:
        _remove(store, earlier.id)
    return letter


def read(store: ObjectStore, letter: str) -> DeadLetterRecord | None:
    """Return a dead letter; None where there is none of this id, or it cannot be read."""
    key = keys.dead_letter(letter)
    return damage.read_json(store, keys.PRODUCTS, key, DeadLetterRecord, lambda found: belongs(found, key))


def belongs(found: DeadLetterRecord, key: str) -> bool:
    """Tell whether a dead letter is the one for this key."""
    return keys.dead_letter(found.id) == key


def discarded(store: ObjectStore, letter: str) -> Discarded | None:
    """Return who discarded a dead letter and why; None where nobody did."""
    return damage.read_json(store, keys.PRODUCTS, keys.discarded(letter), Discarded)


def discard(store: ObjectStore, letter: DeadLetterRecord, reason: str) -> Discarded:
    """Write down that nothing is to be done about a dead letter; one that comes after it is listed again."""
    said = Discarded(times=letter.times, reason=reason, at=datetime.now(UTC))
    store.put(keys.PRODUCTS, keys.discarded(letter.id), said.to_bytes(), media_type=DATA_TYPE)
    return said


def open_letters(store: ObjectStore) -> Iterator[DeadLetterRecord]:
    """Yield the dead letters that nobody has discarded, and of which what they asked for is not there.

    What cannot be read is passed over, and reported. One list is asked for each model version that they are about.

    Raises:
        Unavailable: the object store does not answer.
    """
    answers = _Answers(store)
    return (one for one in _kept(store) if not answers.settle(one))


def forget(store: ObjectStore, now: datetime) -> int:
    """Remove what is kept no longer, and return how many objects that were; discard what is settled.

    Who lists or counts dead letters then has fewer to compare with what is there.

    Raises:
        Unavailable: the object store does not answer; what was done is done.
    """
    listed = {one.key: one for one in store.list(keys.PRODUCTS, keys.DEAD_LETTERS)}
    kept = {key for key, one in listed.items() if not key.endswith(DISCARDED) and now - one.modified <= KEPT}
    # Without its letter, what was discarded would hide the next one of the same cause.
    old = [key for key in listed if key.replace(DISCARDED, ".json") not in kept]
    for key in old:
        store.remove(keys.PRODUCTS, key)
    try:
        _discard_settled(store)
    except Unavailable as error:  # it may be one letter that the store does not give
        _log.warning("not all dead letters that are settled are discarded: %s", error)
    return len(old)


def _discard_settled(store: ObjectStore) -> None:
    answers = _Answers(store)
    for letter in _kept(store):
        if answers.settle(letter):
            discard(store, letter, SETTLED)


class _Answers:
    """What the functions have answered about the model versions of dead letters, each listed once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._listed: dict[str, list[Object]] = {}

    def settle(self, letter: DeadLetterRecord) -> bool:
        """Tell whether what a letter asked for is there: at its place, or, later than the letter, at another.

        A new recipe, dataset or upload gives it another place, and acceptance brings there what lay beside.
        """
        if letter.function != ADMIT and letter.function not in {one.declared.name for one in declared_products()}:
            return False
        try:
            identity = Identity.parse(letter.subject)
        except ValueError:
            return False
        there = [one for one in self._of(identity, letter.function) if _function_of(one.key) == letter.function]
        if letter.outcome.startswith(keys.BESIDE):
            beside = self._store.head(keys.PRODUCTS, letter.outcome)
            there += [beside] if beside is not None else []
        return any(
            (one.key == letter.outcome or one.modified > letter.last) and self._is_answer(one, letter.function)
            for one in there
        )

    def _of(self, identity: Identity, function: str) -> list[Object]:
        prefix = keys.uploads_of(identity) if function == ADMIT else keys.manifests_of(identity)
        if prefix not in self._listed:
            self._listed[prefix] = list(self._store.list(keys.PRODUCTS, prefix))
        return self._listed[prefix]

    def _is_answer(self, one: Object, function: str) -> bool:
        if function == ADMIT:
            return damage.read_listed(self._store, keys.PRODUCTS, one, UploadRecord) is not None
        return damage.read_listed(self._store, keys.PRODUCTS, one, Manifest) is not None


def _kept(store: ObjectStore) -> Iterator[DeadLetterRecord]:
    """Yield the dead letters that can be read and were not discarded."""
    listed = {one.key: one for one in store.list(keys.PRODUCTS, keys.DEAD_LETTERS)}
    for key, one in sorted(listed.items()):
        if key.endswith(DISCARDED):
            continue
        letter = damage.read_listed(store, keys.PRODUCTS, one, DeadLetterRecord, partial(belongs, key=key))
        if letter is None:
            continue
        mark = listed.get(keys.discarded(letter.id))
        said = damage.read_listed(store, keys.PRODUCTS, mark, Discarded) if mark else None
        if said is None or said.times < letter.times:
            yield letter


def _under_its_event(store: ObjectStore, letter: DeadLetterRecord) -> DeadLetterRecord | None:
    """Return the letter of the same cause that an earlier release keeps under the id of its event; None: there is none."""
    former = identifier(letter.attributes.get("id", ""), letter.function)
    found = read(store, former) if former != letter.id else None
    if found is None or _answer(found) != _answer(letter):
        return None
    return found


def _answer(letter: DeadLetterRecord) -> tuple[int | None, str, str]:
    return letter.status, letter.error, _gist(letter.reason)


def _gist(reason: str) -> str:
    return _VARYING.sub("#", reason)


def _remove(store: ObjectStore, letter: str) -> None:
    for key in (keys.dead_letter(letter), keys.discarded(letter)):
        store.remove(keys.PRODUCTS, key)


def _function_of(key: str) -> str | None:
    """Return the function whose outcome lies at a key; None: it is a failure, or of no model."""
    parts = key.split("/")
    if key.endswith(".failed.json"):
        return None
    if len(parts) == 5 and key.startswith(keys.UPLOADS):
        return ADMIT
    if len(parts) == 7 and key.startswith(keys.MANIFESTS):
        return parts[5]
    return parts[7] if len(parts) == 9 and key.startswith(keys.BESIDE) else None
