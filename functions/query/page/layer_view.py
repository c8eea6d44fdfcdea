"""The layers of a model as its page shows them: what several products say of one layer, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from layerscope.schemas.identity import Identity


@dataclass(frozen=True, slots=True)
class LayerView:
    """One call of one layer, with what each product says of it."""

    name: str
    type: str
    shape: tuple[int, ...]
    warnings: tuple[str, ...]
    parameters: int | None
    multiply_adds: int | None
    health: Mapping[str, Any] | None
    activation: Mapping[str, Any] | None
    made: tuple[Mapping[str, Any], ...]
    similar_url: str | None


def layers(identity: Identity, data: Mapping[str, Any]) -> tuple[LayerView, ...]:
    """Return the layers that any product tells of, in the order of the forward pass."""
    health = _by_call(data.get("layer_vectors"), "layers")
    activation = _by_call(data.get("feature_activation"), "layers")
    costs = _by_call(data.get("summary"), "layers")
    pictures = data.get("activation_maximization") or {}
    shown = pictures.get("layer") or {}
    order = list(health) or list(activation)
    return tuple(
        LayerView(
            name=name if call == 0 else f"{name}:{call}",
            type=(health.get((name, call)) or activation[name, call])["type"],
            shape=tuple((health.get((name, call)) or activation[name, call])["shape"]),
            warnings=_warnings(health.get((name, call)), activation.get((name, call))),
            parameters=costs.get((name, call), {}).get("parameters"),
            multiply_adds=costs.get((name, call), {}).get("multiply_adds"),
            health=health.get((name, call)),
            activation=activation.get((name, call)),
            made=tuple(pictures.get("channels", ())) if (shown.get("name"), shown.get("call")) == (name, call) else (),
            similar_url=_similar(identity, health.get((name, call))),
        )
        for name, call in order
    )


def _by_call(product: Mapping[str, Any] | None, rows: str) -> dict[tuple[str, int], Any]:
    return {(row["name"], row.get("call", 0)): row for row in (product or {}).get(rows, ())}


def _warnings(health: Mapping[str, Any] | None, activation: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return in a few words each what is wrong with a layer."""
    found = []
    if health and health["state"] != "ok":
        found.append({"constant": "constant", "non_finite": "not finite", "unbatched": "not by image"}[health["state"]])
    if activation and (dead := len(activation["dead"])):
        found.append(f"{dead} of {activation['channels']} channels dead")
    if activation and (broken := len(activation["non_finite"])):
        found.append(f"{broken} channels not finite")
    return tuple(found)


def _similar(identity: Identity, health: Mapping[str, Any] | None) -> str | None:
    if not health or health["state"] != "ok":
        return None
    layer = health["name"] if health["call"] == 0 else f"{health['name']}:{health['call']}"
    return f"/models/{identity.subject}/layers/{quote(layer, safe='')}/similar"
