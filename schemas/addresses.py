"""Where each product of a model should be: a digest of everything that determines it, computed from facts alone.

`missing` means: no manifest at the address it should have. A new recipe, a changed dataset, a late sidecar and a lost
event are all that one case.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    addresses: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Those that were computed of these facts, by product: others stand on them."""


def inputs_of(product: type[Product], facts: Facts) -> Inputs:
    """Return what the product is to be made from, besides the model's content."""
    declared, dataset = product.declared, facts.dataset
    read = (*declared.parts, *declared.optional_parts)
    parts: dict[str, str | None] = {part: dataset.part_digest(part) if dataset else None for part in read}
    if declared.takes_shape:
        parts["shape"] = digest(dataset.shape) if dataset else None
    return Inputs(
        parts=parts,
        products={one.declared.name: address_of(one, facts) for one in declared.stands_on},
        sidecars={kind: facts.sidecars[kind] for kind in declared.sidecars if kind in facts.sidecars},
    )


def determining(product: type[Product], facts: Facts) -> dict[str, Any]:
    """Return, as JSON, everything that determines this product of this model."""
    declared = product.declared
    return {
        "product": declared.name,
        "recipe": declared.recipe,
        "parameters": dict(declared.parameters),
        "seed": declared.seed,
        "content": facts.content,
        "inputs": inputs_of(product, facts).model_dump(mode="json"),
    }


def address_of(product: type[Product], facts: Facts) -> str:
    """Return `r<recipe>-<digest>`: where this product of this model should be."""
    name = product.declared.name
    if name not in facts.addresses:
        facts.addresses[name] = f"r{product.declared.recipe}-{digest(determining(product, facts))}"
    return facts.addresses[name]


def manifest_key(product: type[Product], facts: Facts) -> str:
    """Return the key of the manifest that this product of this model should have."""
    return keys.manifest(facts.identity, facts.content, product.declared.name, address_of(product, facts))
