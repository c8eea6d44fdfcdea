"""How products get into the bucket and out: blobs first, the manifest last and conditional, readers trust only manifests."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of, inputs_of, manifest_key
from layerscope.schemas.digests import canonical_json, sha256
from layerscope.schemas.errors import Refused
from layerscope.schemas.files import DATA, DATA_TYPE, NPY
from layerscope.schemas.manifests import Failure, File, Manifest, Refusal
from layerscope.schemas.products.product import Product
from layerscope.stores import blobs, damage
from layerscope.stores.object_store import Object, ObjectStore


@dataclass(frozen=True, slots=True)
class Making:
    """How an outcome came about; not part of what it is."""

    software: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    seconds: float = 0.0
    event: str = ""
    traceparent: str | None = None


def encode(product: Product) -> dict[str, tuple[bytes, str]]:
    """Return the product's files: name to bytes and media type; equal products give equal bytes."""
    files = {DATA: (canonical_json(product.model_dump(mode="json")), DATA_TYPE)}
    for name, kind in type(product).files().items():
        value: Any = getattr(product, name)
        content = _npy(value) if kind is NPY else value.encode() if kind.is_text else value
        files[f"{name}.{kind.extension}"] = (content, kind.media_type)
    return files


def decode(product: type[Product], files: dict[str, bytes]) -> Product:
    """Read a product back from its files."""
    fields: dict[str, Any] = json.loads(files[DATA])
    for name, kind in product.files().items():
        content = files[f"{name}.{kind.extension}"]
        if kind is NPY:
            fields[name] = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            fields[name] = content.decode() if kind.is_text else content
    return product.model_validate(fields)


def manifest(store: ObjectStore, product: type[Product], facts: Facts, beside: str | None = None) -> Manifest | None:
    """Return the manifest at the product's present address; None where there is none (that can be read) yet.

    `beside`: the run whose own one is meant, made once more, next to the one that stands.
    """
    key = manifest_key(product, facts)
    place = keys.beside(beside, key) if beside else key
    return damage.read_json(store, keys.PRODUCTS, place, Manifest, lambda found: belongs(found, key))


def listed_manifest(store: ObjectStore, key: str, listed: Mapping[str, Object]) -> Manifest | None:
    """Return the manifest at `key` where the bucket has just been listed: `listed` are its objects, by key."""
    if key not in listed:
        return None
    return damage.read_listed(store, keys.PRODUCTS, listed[key], Manifest, lambda found: belongs(found, key))


def belongs(found: Manifest, key: str) -> bool:
    """Tell whether a manifest is the one for this key."""
    return keys.manifest(found.identity, found.content, found.product, found.address) == key


def failure(store: ObjectStore, outcome_key: str) -> Failure | None:
    """Return the failure recorded in the place of the outcome at `outcome_key`; a manifest there outranks it."""
    return damage.read_json(store, keys.PRODUCTS, keys.failure(outcome_key), Failure)


def listed_failure(store: ObjectStore, outcome_key: str, listed: Mapping[str, Object]) -> Failure | None:
    """Return the same where the bucket has just been listed: `listed` are its objects, by key."""
    key = keys.failure(outcome_key)
    return damage.read_listed(store, keys.PRODUCTS, listed[key], Failure) if key in listed else None


def load(store: ObjectStore, product: type[Product], complete: Manifest) -> Product:
    """Read the product that a manifest names.

    Raises:
        Damaged: its bytes are lost, or are something else.
    """
    wanted = [DATA, *(f"{name}.{kind.extension}" for name, kind in product.files().items())]
    return decode(product, {name: blobs.get(store, complete.file(name).sha256) for name in wanted})


def write(store: ObjectStore, product: Product, facts: Facts, making: Making, beside: str | None = None) -> Manifest:
    """Store a product under its address, or for a run beside it, and return the manifest that stands there afterwards.

    Whoever writes the manifest first has made the product; a second maker leaves it as it is, unless it cannot be read
    or its files are lost and are no longer made the same.
    """
    files = []
    for name, (content, media_type) in encode(product).items():
        file = File(name=name, sha256=sha256(content), size=len(content), type=media_type)
        blobs.put(store, file.sha256, content, media_type)
        files.append(file)
    made = _manifest(type(product), facts, making, state="complete", headline=product.headline(), files=tuple(files))
    return _settle(store, type(product), facts, made, beside)


def refuse(
    store: ObjectStore,
    product: type[Product],
    facts: Facts,
    refused: Refused,
    making: Making,
    beside: str | None = None,
) -> Manifest:
    """Store that this model cannot have the product, and return the manifest that stands there afterwards."""
    refusal = Refusal(code=refused.code, message=refused.message, hint=refused.hint)
    return _settle(store, product, facts, _manifest(product, facts, making, state="refused", refusal=refusal), beside)


def _settle(store: ObjectStore, product: type[Product], facts: Facts, made: Manifest, beside: str | None) -> Manifest:
    key = manifest_key(product, facts)

    def stands(found: Manifest) -> bool:
        return belongs(found, key) and (found.files == made.files or blobs.are_stored(store, found.files))

    return damage.settle(store, keys.beside(beside, key) if beside else key, made, stands)


def _manifest(product: type[Product], facts: Facts, making: Making, **outcome: Any) -> Manifest:
    declared, identity = product.declared, facts.identity
    return Manifest(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        content=facts.content,
        product=declared.name,
        recipe=declared.recipe,
        address=address_of(product, facts),
        parameters=dict(declared.parameters),
        seed=declared.seed,
        inputs=inputs_of(product, facts),
        software=dict(making.software),
        device=making.device,
        seconds=making.seconds,
        event=making.event,
        traceparent=making.traceparent,
        **outcome,
    )


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
