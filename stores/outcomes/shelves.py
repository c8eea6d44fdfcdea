"""What lies in the bucket `products` under each of many model versions, taken from one list in their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.stores import damage
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.outcomes.known import KnownModel, KnownOutcomes

Listed = Mapping[str, Object]


def in_order(identities: Iterable[Identity]) -> list[Identity]:
    """Return model versions in the order of their keys in a list of the bucket."""
    return sorted(identities, key=_place)


def shelves(store: ObjectStore, identities: Sequence[Identity]) -> Iterator[tuple[Identity, Listed]]:
    """Yield each of these model versions, which are `in_order`, with the records and manifests under its name.

    What lies between the first and the last is listed by pages of 1,000 objects: cheap for neighbours.
    """
    if not identities:
        return
    groups = [_Groups(store, prefix, identities[0]) for prefix in (keys.UPLOADS, keys.MANIFESTS)]
    for identity in identities:
        yield identity, groups[0].of(identity) | groups[1].of(identity)


def lost_blobs(store: ObjectStore, known: KnownOutcomes, prefix: str = "") -> set[Identity]:
    """Compare blobs with what is known of who needs them; return the model versions of those that are lost.

    Args:
        prefix: the first digit of their digests, or nothing; of those blobs `known.lost` is made what it should be.
    """
    listed: dict[bytes, int] = {}
    for one in store.list(keys.PRODUCTS, keys.BLOBS + prefix):
        digest = one.key.removeprefix(keys.BLOBS)
        if len(digest) == 64 and set(digest) <= set("0123456789abcdef"):
            listed[bytes.fromhex(digest)] = one.size
    first = {byte for byte in range(256) if f"{byte:02x}".startswith(prefix)}
    losers = set()
    known.lost = {digest for digest in known.lost if digest[0] not in first}
    for identity, model in known.models.items():
        for lost in _lost(model, listed, first):
            known.lost.add(lost)
            losers.add(identity)
            damage.report(keys.PRODUCTS, keys.blob(lost.hex()), "is lost, or cut short")
    return losers


def is_there(size: int, found: int | None) -> bool:
    """Tell whether a blob of `found` bytes (None: none) can be the one of `size` (negative: of any)."""
    return found == size if size >= 0 else bool(found)


def _lost(model: KnownModel, listed: Mapping[bytes, int], first: set[int]) -> Iterator[bytes]:
    for digest, size in model.files():
        if digest[0] in first and not is_there(size, listed.get(digest)):
            yield digest


class _Groups:
    """The objects of a prefix, a model version at a time."""

    def __init__(self, store: ObjectStore, prefix: str, first: Identity) -> None:
        listed = store.list(keys.PRODUCTS, prefix, after=f"{prefix}{first.subject}/")
        self._groups = groupby(listed, lambda one: tuple(one.key.split("/", 4)[1:4]))
        self._place: tuple[str, ...] = ()
        self._found: dict[str, Object] = {}
        self._next()

    def of(self, identity: Identity) -> dict[str, Object]:
        """Return those of a model version; to be asked for in order."""
        wanted = _place(identity)
        while self._place and "/".join(self._place) + "/" < wanted:
            self._next()
        return self._found if "/".join(self._place) + "/" == wanted else {}

    def _next(self) -> None:
        self._place, group = next(self._groups, ((), iter(())))
        self._found = {one.key: one for one in group}


def _place(identity: Identity) -> str:
    return f"{identity.subject}/"
