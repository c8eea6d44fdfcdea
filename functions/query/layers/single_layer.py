"""One layer of a model: what several products say of it, put together, with its channels. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerscope.functions.query.layers.layer_health import ChannelHealth, signs
from layerscope.functions.query.layers.layer_rows import ACTIVATION, SUMMARY, VECTORS, Row, layer_path
from layerscope.functions.query.layers.microscope import Microscope, microscope
from layerscope.schemas.identity import Identity
from layerscope.schemas.layers import ChannelLine, Channels, ChannelSign, ChannelSort, LayerAnswer, RankedBy
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.schemas.products.summary import TensorFigures
from layerscope.stores.object_store import ObjectStore

_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ChannelsAsked:
    """Which channels of a layer are meant, in which order, and by which ranking their images."""

    by: RankedBy = "positive"
    sort: ChannelSort = "channel"
    only: ChannelSign | None = None
    limit: int = 48
    cursor: int = 0


def layer(store: ObjectStore, identity: Identity, name: str, asked: ChannelsAsked) -> LayerAnswer:
    """Return all that is known of one layer, with the channels that were asked for.

    Raises:
        Unanswerable: there is no such model or layer, or nothing is known of its layers (yet).
    """
    scope = microscope(store, identity)
    call = scope.call(name)
    row, health, activation = (
        scope.rows.costs.get(call, _NONE),
        scope.rows.health.get(call),
        scope.rows.activations.get(call),
    )
    measured = health or activation or _NONE
    whole: Row = scope.products[SUMMARY].data if SUMMARY in scope.products else _NONE
    every = list(scope.rows.calls)
    at = every.index(name)
    no_channels = scope.why_no_channels(call)
    return LayerAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        layer=name,
        type=row.get("type") or measured["type"],
        arguments=row.get("arguments", {}),
        called=row.get("call", 0) is not None,
        input=row.get("input"),
        output=row.get("output") or measured.get("shape"),
        parameters=row.get("parameters"),
        parameters_in_all=whole.get("parameters"),
        multiply_adds=row.get("multiply_adds"),
        multiply_adds_in_all=whole.get("multiply_adds"),
        learns=row.get("learns"),
        weights=tuple(map(TensorFigures.model_validate, row.get("weights", ()))),
        health=Layer.model_validate(health) if health else None,
        signs=signs(health, activation),
        similar=f"{layer_path(identity, name)}/similar" if health and health["state"] == "ok" else None,
        channels=_channels(scope, activation, asked) if activation and no_channels is None else None,
        channels_reason=no_channels,
        outdated=scope.outdated(SUMMARY, VECTORS, ACTIVATION),
        previous=every[at - 1] if at else None,
        next=every[at + 1] if at + 1 < len(every) else None,
    )


def _channels(scope: Microscope, row: Row, asked: ChannelsAsked) -> Channels:
    norms, health = scope.norms(row), ChannelHealth.of(row)
    meant = [k for k in range(row["channels"]) if asked.only is None or asked.only in health.signs(k)]
    if asked.sort == "strongest":
        meant.sort(key=lambda k: -np.nan_to_num(norms[k], nan=-1.0))
    here = meant[asked.cursor : asked.cursor + asked.limit]
    after = asked.cursor + len(here)
    images = scope.ranked(row, here, asked.by)
    return Channels(
        channels=row["channels"],
        dead=len(row["dead"]),
        constant=len(row["constant"]),
        not_finite=len(row["non_finite"]),
        activation=row["activation"],
        activation_layer=row["activation_layer"],
        shape=row["activation_shape"],
        through_sum=row["through_sum"],
        by=asked.by,
        total=len(meant),
        lines=tuple(
            ChannelLine(channel=k, signs=health.signs(k), norm=finite(norms[k]), images=found)
            for k, found in zip(here, images, strict=True)
        ),
        next=str(after) if here and after < len(meant) else None,
    )


def finite(number: float) -> float | None:
    """Return a number, or None where it is not finite."""
    return float(number) if np.isfinite(number) else None
