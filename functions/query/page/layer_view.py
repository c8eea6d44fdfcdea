"""The layers of a model as its page shows them: what several products say of one layer, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.functions.query.layers.layer_health import signs
from layerscope.functions.query.layers.layer_rows import LayerRows, layer_id, layer_path
from layerscope.schemas.identity import Identity
from layerscope.schemas.layers import Sign


@dataclass(frozen=True, slots=True)
class LayerView:
    """One call of one layer, with what each product says of it."""

    name: str
    path: str
    type: str
    shape: tuple[int, ...]
    signs: tuple[Sign, ...]
    parameters: int | None
    multiply_adds: int | None
    health: Mapping[str, Any] | None
    activation: Mapping[str, Any] | None
    made: tuple[Mapping[str, Any], ...]
    similar_url: str | None


def layers(identity: Identity, data: Mapping[str, Any]) -> tuple[LayerView, ...]:
    """Return the layers that any product tells of, in the order of the forward pass."""
    rows = LayerRows(data)
    health, activation, costs = rows.health, rows.activations, rows.costs
    pictures = data.get("activation_maximization") or {}
    shown = pictures.get("layer") or {}
    order = [call for call in rows.calls.values() if call in health or call in activation]
    return tuple(
        LayerView(
            name=layer_id(name, call),
            path=layer_path(identity, layer_id(name, call)),
            type=(health.get((name, call)) or activation[name, call])["type"],
            shape=tuple((health.get((name, call)) or activation[name, call])["shape"]),
            signs=signs(health.get((name, call)), activation.get((name, call))),
            parameters=costs.get((name, call), {}).get("parameters"),
            multiply_adds=costs.get((name, call), {}).get("multiply_adds"),
            health=health.get((name, call)),
            activation=activation.get((name, call)),
            made=tuple(pictures.get("channels", ())) if (shown.get("name"), shown.get("call")) == (name, call) else (),
            similar_url=_similar(identity, health.get((name, call))),
        )
        for name, call in order
    )


def _similar(identity: Identity, health: Mapping[str, Any] | None) -> str | None:
    if not health or health["state"] != "ok":
        return None
    return f"{layer_path(identity, layer_id(health['name'], health['call']))}/similar"
