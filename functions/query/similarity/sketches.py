"""The weight sketches of model versions, read from the bucket: what their families are told by. Blocking."""

from __future__ import annotations

from typing import Final, Literal

from layerscope.functions.query.similarity.families import kinship
from layerscope.functions.query.similarity.nearest_rows import Wanted, nearest_of
from layerscope.schemas.alike import Family, Kinship
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.weight_sketch import WeightSketch
from layerscope.stores import product_store, uploads
from layerscope.stores.blobs import Damaged
from layerscope.stores.index_rows import RowMatch
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore

MOST_SKETCHED: Final = 200
"""Models, the most alike first, whose weights are looked at for those of one family."""


class Relatives:
    """Tells which models are of one family with one model; of each the weights are looked at once."""

    def __init__(self, store: ObjectStore, of: Identity, family: Family) -> None:
        self._store, self._of, self._family = store, of, family
        self._own = sketch(store, of)
        self._known: dict[str, Family | None] = {}

    @property
    def is_sketched(self) -> bool:
        """Tell whether the weights of the model itself are sketched; without that it has no relatives."""
        return self._own is not None

    @property
    def looked_at(self) -> int:
        """Return at how many models it looked."""
        return len(self._known)

    def has(self, subject: str) -> bool:
        """Tell whether a model is of the family; one that is not sketched (yet) is of none."""
        if subject not in self._known:
            theirs = sketch(self._store, Identity.parse(subject)) if self._own else None
            kin = kinship(self._own, theirs) if self._own and theirs else None
            self._known[subject] = kin.family if kin else None
        return self._known[subject] == self._family


def nearest_relatives(
    store: ObjectStore,
    vectors: VectorStore,
    wanted: Wanted,
    of: Identity,
    family: Family,
    what: Literal["layers", "classes"],
) -> tuple[list[RowMatch], str | None, str | None]:
    """Return a page of the nearest rows of models of one family with one model, its next cursor, and why there are none."""
    relatives = Relatives(store, of, family)
    if not relatives.is_sketched:
        return [], None, unsketched(of)
    matches, following = nearest_of(vectors, wanted, relatives.has, MOST_SKETCHED)
    if matches or not relatives.looked_at or wanted.after is not None:
        return matches, following, None
    looked_at = "the one model" if relatives.looked_at == 1 else f"the {relatives.looked_at} models"
    return [], None, f"Of {looked_at} with the nearest {what} none is of the family {family}."


def unsketched(identity: Identity) -> str:
    """Say why a model has no relatives (yet)."""
    return f"The weights of {identity.subject} have not been sketched (yet)."


def sketch(store: ObjectStore, identity: Identity) -> WeightSketch | None:
    """Return the sketch of a model's weights; None where there is none (yet).

    Raises:
        Unavailable: its bytes are lost.
    """
    upload = uploads.current(store, identity)
    record = uploads.record(store, upload) if upload else None
    if record is None or record.content is None:
        return None
    manifest = product_store.manifest(store, WeightSketch, uploads.facts(store, record))
    if manifest is None or manifest.state == "refused":
        return None
    try:
        found = product_store.load(store, WeightSketch, manifest)
    except Damaged as damaged:
        raise Unavailable(f"the weight sketch of {identity.subject} is damaged") from damaged
    assert isinstance(found, WeightSketch)
    return found


def related(store: ObjectStore, a: Identity, b: Identity) -> Kinship | None:
    """Return how the weights of two models are related; None where one is not sketched (yet)."""
    first = sketch(store, a)
    second = sketch(store, b) if first else None
    return kinship(first, second, (a.subject, b.subject)) if first and second else None
