"""The index made again from the bucket alone: a new build, filled model by model, is switched to once it is whole.

What is read goes on being read meanwhile. Cut short, it leaves a build that nobody reads, and the next one removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.functions.index.turn import look, write
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.stores import catalogue
from layerscope.stores.index_rows import Replacement
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.uploads import by_identity
from layerscope.stores.vector_store import MilvusStore, VectorStore

ROUNDS: Final = 5
AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild came to: model versions and layer rows, and the models whose vectors cannot be read."""

    models: int
    rows: int
    damaged: tuple[str, ...]


def rebuild(store: ObjectStore, vectors: MilvusStore, progress: Callable[[int, int], None]) -> Rebuilt:
    """Make every row again and switch to them; the caller moves the caches on. Blocking.

    What moves in the bucket meanwhile is looked at again before the switch; what moves during it, repair finds: its
    catalogue row has another fingerprint than the bucket.

    Args:
        store: what the rows are made from.
        vectors: the index, of which a new build is made.
        progress: is called with how many models are done, and how many there are.

    Raises:
        Unavailable: a service does not answer; what was read before goes on being read.
    """
    build, damaged = vectors.begun(), set[str]()
    waiting = _identities(store)
    for _ in range(ROUNDS):
        for done in range(0, len(waiting), AT_ONCE):
            progress(done, len(waiting))
            _write(store, build, waiting[done : done + AT_ONCE], damaged)
        progress(len(waiting), len(waiting))
        waiting = _moved(store, build, damaged)
        if not waiting:
            break
    lines = build.catalogue()
    vectors.switch(build)
    return Rebuilt(len(lines), sum(line.rows for line in lines), tuple(sorted(damaged)))


def _identities(store: ObjectStore) -> list[Identity]:
    return sorted(by_identity(store.list(keys.MODELS))[0])


def _write(store: ObjectStore, build: VectorStore, identities: Sequence[Identity], damaged: set[str]) -> None:
    """Write the rows of models; one that cannot be read has none at all, so that repair finds it missing."""
    subjects = [one.subject for one in identities]
    damaged.difference_update(subjects)
    written = dict(write(store, build, {one.subject: look(store, one) for one in identities}))
    unread = [one for one in subjects if one not in written]
    damaged.update(unread)
    build.replace([Replacement(one, {}, None) for one in unread])


def _moved(store: ObjectStore, build: VectorStore, damaged: Iterable[str]) -> list[Identity]:
    """Return the models of which the bucket says another thing than when they were written."""
    lines = {line.subject: line.fingerprint for line in build.catalogue()}
    present = {one.subject: one for one in _identities(store)}
    gone = [Identity.parse(subject) for subject in lines if subject not in present]
    return gone + [
        identity
        for subject, identity in present.items()
        if subject not in damaged and _present(store, identity) != lines.get(subject)
    ]


def _present(store: ObjectStore, identity: Identity) -> str | None:
    found = catalogue.present(store, identity)
    return found.fingerprint if found else None
