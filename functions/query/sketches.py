"""The weight sketches of model versions, read from the bucket: what their families are told by. Blocking."""

from __future__ import annotations

from layerscope.functions.query.families import kinship
from layerscope.schemas.alike import Kinship
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.weight_sketch import WeightSketch
from layerscope.stores import product_store, uploads
from layerscope.stores.blobs import Damaged
from layerscope.stores.object_store import ObjectStore


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
