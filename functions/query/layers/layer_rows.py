"""What the products of a model say of each call of each of its layers, and how a layer is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from layerscope.schemas.identity import Identity
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.summary import Summary

Row = Mapping[str, Any]
Call = tuple[str, int]
SUMMARY: Final = Summary.declared.name
VECTORS: Final = LayerVectors.declared.name
ACTIVATION: Final = FeatureActivation.declared.name
_NO_LAYERS: Final = ("Parameter", "function")
"""Types of rows of the layer table that are no layers."""


def layer_id(name: str, call: int) -> str:
    """Return how a layer is asked for: its name, with `:call` from the second call on."""
    return name if call == 0 else f"{name}:{call}"


def layer_path(identity: Identity, layer: str) -> str:
    """Return the path of a layer."""
    return f"/models/{identity.subject}/layers/{quote(layer, safe='')}"


@dataclass(frozen=True)
class LayerRows:
    """The rows of a model's layers in each product, by call; `data` are the products' data by name, of those there are."""

    data: Mapping[str, Row | None]

    @cached_property
    def costs(self) -> Mapping[Call, Row]:
        """Return the rows of the layer table."""
        rows = (row for row in self._rows(SUMMARY) if row["type"] not in _NO_LAYERS)
        return {(row["name"], row["call"] or 0): row for row in rows}

    @cached_property
    def health(self) -> Mapping[Call, Row]:
        """Return the rows of the layers that are compared."""
        return {(row["name"], row["call"]): row for row in self._rows(VECTORS)}

    @cached_property
    def activations(self) -> Mapping[Call, Row]:
        """Return the rows of the layers whose channels have rankings."""
        return {(row["name"], row["call"]): row for row in self._rows(ACTIVATION)}

    @cached_property
    def calls(self) -> Mapping[str, Call]:
        """Return the calls of all layers by how they are asked for, in the order of the forward pass."""
        return {layer_id(*call): call for call in dict.fromkeys((*self.costs, *self.health, *self.activations))}

    def _rows(self, product: str) -> Iterator[Row]:
        yield from (self.data.get(product) or {}).get("layers", ())
