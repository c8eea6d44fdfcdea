"""Where each product of a model should be: a digest of everything that determines it, computed from facts alone.

`missing` means: no manifest at the address it should have. A new recipe, a changed dataset, a late sidecar and a lost
event are all that one case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from layerscope.schemas import keys
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.digests import digest
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Inputs
from layerscope.schemas.products.product import Product


@dataclass(frozen=True, slots=True)
class Facts:
    """All that addresses depend on: the model's content, its dataset (None: not there) and its sidecars' ETags."""

    identity: Identity
    content: str
    dataset: DatasetDescription | None
    sidecars: Mapping[str, str] = field(default_factory=dict)


def inputs_of(product: type[Product], facts: Facts) -> Inputs:
    """Return what the product is to be made from, besides the model's content."""
    return _inputs(product, facts, {})


def _inputs(product: type[Product], facts: Facts, known: dict[str, str]) -> Inputs:
    declared, dataset = product.declared, facts.dataset
    read = (*declared.parts, *declared.optional_parts)
    parts: dict[str, str | None] = {part: dataset.part_digest(part) if dataset else None for part in read}
    if declared.takes_shape:
        parts["shape"] = digest(dataset.shape) if dataset else None
    return Inputs(
        parts=parts,
        products={one.declared.name: _address(one, facts, known) for one in declared.stands_on},
        sidecars={kind: facts.sidecars[kind] for kind in declared.sidecars if kind in facts.sidecars},
    )


def determining(product: type[Product], facts: Facts) -> dict[str, Any]:
    """Return, as JSON, everything that determines this product of this model."""
    return _determining(product, facts, {})


def _determining(product: type[Product], facts: Facts, known: dict[str, str]) -> dict[str, Any]:
    declared = product.declared
    return {
        "product": declared.name,
        "recipe": declared.recipe,
        "parameters": dict(declared.parameters),
        "seed": declared.seed,
        "content": facts.content,
        "inputs": _inputs(product, facts, known).model_dump(mode="json"),
    }


def address_of(product: type[Product], facts: Facts) -> str:
    """Return `r<recipe>-<digest>`: where this product of this model should be."""
    return _address(product, facts, {})


def _address(product: type[Product], facts: Facts, known: dict[str, str]) -> str:
    """Return the address of a product; `known` has those that were computed of these facts, as others stand on them."""
    name = product.declared.name
    if name not in known:
        known[name] = f"r{product.declared.recipe}-{digest(_determining(product, facts, known))}"
    return known[name]


def manifest_keys(products: Iterable[type[Product]], facts: Facts) -> dict[str, str]:
    """Return the keys of the manifests that these products of this model should have, by the products' names."""
    known: dict[str, str] = {}
    return {
        one.declared.name: keys.manifest(facts.identity, facts.content, one.declared.name, _address(one, facts, known))
        for one in products
    }


def manifest_key(product: type[Product], facts: Facts) -> str:
    """Return the key of the manifest that this product of this model should have."""
    return keys.manifest(facts.identity, facts.content, product.declared.name, address_of(product, facts))
